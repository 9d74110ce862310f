"""How large an image is: unpacked, as a node keeps it, and compressed, as a registry sends it."""

from __future__ import annotations

import json
import os
import re
import tarfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO

GZIP_LEVEL = 6  # of the programs that push images, which compress pieces at the same time too
GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW = 16 + zlib.MAX_WBITS
CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class Size:
    """Bytes of a layer, or of all layers of an image."""

    compressed: int
    unpacked: int

    def __add__(self, other: Size) -> Size:
        return Size(self.compressed + other.compressed, self.unpacked + other.unpacked)

    def __str__(self) -> str:
        return f"{self.compressed / 1e6:.0f} MB compressed, {self.unpacked / 1e6:.0f} MB unpacked"


def read_sizes(path: Path) -> dict[str, Size]:
    """The sizes that `write_sizes` left, by the layers' digests; none where there is no such file."""
    if not path.exists():
        return {}
    return {digest: Size(**size) for digest, size in json.loads(path.read_text(encoding="utf-8")).items()}


def write_sizes(path: Path, sizes: Mapping[str, Size]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.partial")
    unfinished.write_text(json.dumps({digest: asdict(size) for digest, size in sizes.items()}), encoding="utf-8")
    unfinished.replace(path)


def measure(archive: IO[bytes], digests: list[str], known: Mapping[str, Size]) -> dict[str, Size]:
    """The sizes of an image's layers by their digests.

    Args:
        archive: a docker-archive, which is read to its end.
        digests: of the layers when unpacked, in their order.
        known: sizes by digest; what is known is not measured again.
    """
    found: dict[str, Size] = {}
    names: list[str] = []
    with tarfile.open(fileobj=archive, mode="r|") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            if content is None:
                continue
            if member.name == "manifest.json":
                (manifest,) = json.load(content)
                names = manifest["Layers"]
            elif digest := _known(member.name, known):
                found[member.name] = known[digest]
            elif member.name.endswith(".tar") or "/sha256/" in member.name:
                found[member.name] = measure_layer(content)
    while archive.read(CHUNK_BYTES):  # who writes it must not find its pipe closed
        pass
    return {digest: found[name] for digest, name in zip(digests, names, strict=True)}


def measure_layer(stream: IO[bytes]) -> Size:
    """The size of a layer, whether it is compressed there or not."""
    first = stream.read(CHUNK_BYTES)
    chunks = _chunks(first, stream)
    return _measure_compressed(chunks) if first.startswith(GZIP_MAGIC) else _measure_unpacked(chunks)


def _known(name: str, known: Mapping[str, Size]) -> str:
    """The digest that a member of an archive is named by, if that layer is known; else ""."""
    named = re.search(r"[0-9a-f]{64}", name)
    return named[0] if named and named[0] in known else ""


def _chunks(first: bytes, stream: IO[bytes]) -> Iterator[bytes]:
    chunk = first
    while chunk:
        yield chunk
        chunk = stream.read(CHUNK_BYTES)


def _measure_unpacked(chunks: Iterable[bytes]) -> Size:
    processors = os.cpu_count() or 1
    compressed = unpacked = 0
    pending: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(processors) as threads:
        for chunk in chunks:
            unpacked += len(chunk)
            pending.append(threads.submit(partial(zlib.compress, level=GZIP_LEVEL, wbits=GZIP_WINDOW), chunk))
            if len(pending) > 2 * processors:
                compressed += len(pending.popleft().result())
        compressed += sum(len(future.result()) for future in pending)
    return Size(compressed, unpacked)


def _measure_compressed(chunks: Iterable[bytes]) -> Size:
    unpacker = zlib.decompressobj(wbits=GZIP_WINDOW)
    compressed = unpacked = 0
    for chunk in chunks:
        compressed += len(chunk)
        unpacked += len(unpacker.decompress(chunk))
        while unpacker.eof and unpacker.unused_data:  # a stream of several gzip members
            rest, unpacker = unpacker.unused_data, zlib.decompressobj(wbits=GZIP_WINDOW)
            unpacked += len(unpacker.decompress(rest))
    return Size(compressed, unpacked)
