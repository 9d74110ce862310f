"""How large an image is: unpacked, as a node keeps it, and compressed, as a registry sends it."""

from __future__ import annotations

import json
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cosyflow.errors import CosyFlowError

GZIP_LEVEL = 6  # of the programs that push images
GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW = 16 + zlib.MAX_WBITS
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Size:
    """Bytes of a layer, or of all layers of an image."""

    compressed: int
    unpacked: int

    def __add__(self, other: Size) -> Size:
        return Size(self.compressed + other.compressed, self.unpacked + other.unpacked)

    def __str__(self) -> str:
        return f"{self.compressed / 1e6:.0f} MB compressed, {self.unpacked / 1e6:.0f} MB unpacked"


def measure(archive: Path, known: dict[str, Size]) -> Size:
    """The size of the image in a docker-archive.

    Args:
        known: sizes of layers by their names; those measured here are added, as images share layers.
    """
    with tarfile.open(archive) as tar:
        (manifest,) = json.load(_member(tar, "manifest.json"))
        total = Size(0, 0)
        for layer in manifest["Layers"]:
            if layer not in known:
                known[layer] = measure_layer(_member(tar, layer))
            total += known[layer]
    return total


def measure_layer(stream: IO[bytes]) -> Size:
    """The size of a layer, whether it is compressed there or not."""
    first = stream.read(CHUNK_BYTES)
    if first.startswith(GZIP_MAGIC):
        return _measure_compressed(first, stream)
    packer = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_WINDOW)
    compressed = unpacked = 0
    chunk = first
    while chunk:
        unpacked += len(chunk)
        compressed += len(packer.compress(chunk))
        chunk = stream.read(CHUNK_BYTES)
    return Size(compressed + len(packer.flush()), unpacked)


def _measure_compressed(first: bytes, stream: IO[bytes]) -> Size:
    unpacker = zlib.decompressobj(wbits=GZIP_WINDOW)
    compressed = unpacked = 0
    chunk = first
    while chunk:
        compressed += len(chunk)
        unpacked += len(unpacker.decompress(chunk))
        while unpacker.eof and unpacker.unused_data:  # a stream of several gzip members
            rest, unpacker = unpacker.unused_data, zlib.decompressobj(wbits=GZIP_WINDOW)
            unpacked += len(unpacker.decompress(rest))
        chunk = stream.read(CHUNK_BYTES)
    return Size(compressed, unpacked)


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    """A file of an archive."""
    member = tar.extractfile(name)
    if member is None:
        raise CosyFlowError(f"{name} of the image's archive is not a file")
    return member
