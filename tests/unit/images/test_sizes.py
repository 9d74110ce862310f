"""Sizes of images, from archives as Docker and buildah write them."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from pathlib import Path

import pytest

from images.sizes import Size, measure, measure_layer, read_sizes, write_sizes

A, B = "a" * 64, "b" * 64


def noise(count: int) -> bytes:
    return random.Random(1).randbytes(count)


def docker_archive(layers: dict[str, bytes]) -> io.BytesIO:
    """As buildah writes it: the manifest comes last."""
    files = {**layers, "manifest.json": json.dumps([{"Config": "c.json", "Layers": list(layers)}]).encode()}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive.seek(0)
    return archive


def test_an_uncompressed_layer_is_compressed_to_tell_its_size() -> None:
    content = noise(3_000_000) + bytes(5_000_000)
    size = measure_layer(io.BytesIO(content))
    assert size.unpacked == 8_000_000
    assert abs(size.compressed / len(gzip.compress(content, 6)) - 1) < 1e-3


def test_a_compressed_layer_of_several_gzip_members_is_unpacked() -> None:
    packed = gzip.compress(noise(2_000_000)) + gzip.compress(bytes(3_000_000))
    assert measure_layer(io.BytesIO(packed)) == Size(len(packed), 5_000_000)


def test_an_empty_layer() -> None:
    assert measure_layer(io.BytesIO(b"")).unpacked == 0


def test_each_layer_of_an_archive_is_measured() -> None:
    archive = docker_archive({f"{A}.tar": noise(1000), f"{B}.tar": gzip.compress(bytes(9000))})
    sizes = measure(archive, [A, B], {})
    assert [sizes[A].unpacked, sizes[B].unpacked] == [1000, 9000]
    assert archive.read() == b""


@pytest.mark.parametrize("name", [f"{A}.tar", f"blobs/sha256/{A}"], ids=["buildah", "docker"])
def test_a_layer_that_is_known_is_not_measured_again(name: str) -> None:
    assert measure(docker_archive({name: noise(1000)}), [A], {A: Size(1, 2)}) == {A: Size(1, 2)}


def test_sizes_are_kept(tmp_path: Path) -> None:
    assert read_sizes(tmp_path / "sizes.json") == {}
    write_sizes(tmp_path / "sizes.json", {A: Size(1, 2)})
    assert read_sizes(tmp_path / "sizes.json") == {A: Size(1, 2)}
