"""Which objects a pickle asks for, read off its instructions: nothing of it is built or imported."""

from __future__ import annotations

import pickletools
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

_LARGEST = 64 * 2**20
"""Bytes that are looked at; the pickle of a checkpoint comes first and has no tensors in it."""
_PLAIN = (
    "torch",
    "collections.OrderedDict",
    "_codecs.encode",
    "builtins.set",
    "builtins.bytearray",
    "builtins.complex",
)


def strange_objects(path: Path) -> Iterator[str]:
    """The names of what a checkpoint's pickle holds besides tensors and plain values; none when it is no pickle."""
    try:
        for name in _objects(_pickle_of(path)):
            if not name.startswith(_PLAIN):
                yield name
    except Exception:
        return


def _pickle_of(path: Path) -> bytes:
    """The pickle in a file of PyTorch: within a zip or, by old versions, a tar archive, or the file itself."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
            with archive.open(name) as file:
                return file.read(_LARGEST)
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as tar:
            member = tar.extractfile("pickle")
            return member.read(_LARGEST) if member else b""
    with path.open("rb") as file:
        return file.read(_LARGEST)


def _objects(pickled: bytes) -> Iterator[str]:
    """The names that the instructions ask for. An old file of PyTorch is several pickles, one after the other."""
    texts: list[str] = []
    while pickled:
        end = 0
        for instruction, value, position in pickletools.genops(pickled):
            end = (position or 0) + 1
            if isinstance(value, str) and "UNICODE" in instruction.name:
                texts.append(value)
            elif instruction.name == "GLOBAL":
                yield str(value).replace(" ", ".")
            elif instruction.name == "STACK_GLOBAL" and len(texts) > 1:
                yield ".".join(texts[-2:])
        pickled = pickled[end:]
