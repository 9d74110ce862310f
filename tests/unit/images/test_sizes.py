"""Sizes of images, from archives as Docker and buildah write them."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from pathlib import Path

from images.sizes import Size, measure, measure_layer


def noise(count: int) -> bytes:
    return random.Random(1).randbytes(count)


def write_archive(path: Path, layers: dict[str, bytes]) -> None:
    files = {"manifest.json": json.dumps([{"Config": "c.json", "Layers": list(layers)}]).encode(), **layers}
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_an_uncompressed_layer_is_compressed_to_tell_its_size() -> None:
    content = noise(3_000_000) + bytes(5_000_000)
    size = measure_layer(io.BytesIO(content))
    assert size.unpacked == 8_000_000
    assert abs(size.compressed - len(gzip.compress(content, 6))) < 100


def test_a_compressed_layer_of_several_gzip_members_is_unpacked() -> None:
    packed = gzip.compress(noise(2_000_000)) + gzip.compress(bytes(3_000_000))
    assert measure_layer(io.BytesIO(packed)) == Size(len(packed), 5_000_000)


def test_an_empty_layer() -> None:
    assert measure_layer(io.BytesIO(b"")).unpacked == 0


def test_an_image_is_the_sum_of_its_layers(tmp_path: Path) -> None:
    write_archive(tmp_path / "image.tar", {"a.tar": noise(1000), "b.tar": gzip.compress(bytes(9000))})
    known: dict[str, Size] = {}
    size = measure(tmp_path / "image.tar", known)
    assert size.unpacked == 10_000
    assert size == known["a.tar"] + known["b.tar"]


def test_a_layer_that_is_known_is_not_measured_again(tmp_path: Path) -> None:
    write_archive(tmp_path / "image.tar", {"a.tar": noise(1000)})
    assert measure(tmp_path / "image.tar", {"a.tar": Size(1, 2)}) == Size(1, 2)
