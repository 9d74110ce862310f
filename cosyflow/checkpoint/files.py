"""Files of tensors: read without building any other object, written whole or not at all."""

from __future__ import annotations

import hashlib
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from cosyflow import storage
from cosyflow.checkpoint.pickles import strange_objects
from cosyflow.errors import CosyFlowError, PlaceError
from cosyflow.unexpected import describe

_REASON_LENGTH = 200
_OBJECT = re.compile(r"(?:Unsupported (?:global|class|operand)[^\n]*?|GLOBAL )(?P<name>[A-Za-z_]\w*(?:\.\w+)+)")
"""The object that a file asks for, in what torch says of it."""


class UnreadableError(CosyFlowError):
    """A file that is damaged, or holds other things than tensors, numbers, text, lists and dictionaries.

    Attributes:
        reason: what was found, in one line.
    """

    def __init__(self, path: Path, kind: str, reason: str) -> None:
        self.reason = " ".join(reason.split())[:_REASON_LENGTH]
        super().__init__(f"{path}: not a readable {kind} ({self.reason})")


StandIns = Sequence[tuple[Callable[..., Any], str]]
"""What is made, in place of an object of that name, when a pickle asks for it."""


def read_file(path: Path, *, mapped: bool = False, verified: bool = False, stand_ins: StandIns = ()) -> Any:
    """What a `.pt` or `.safetensors` file holds, with its tensors on the CPU.

    Args:
        mapped: leaves tensors in the file until they are used; the file must not be written to meanwhile.
        verified: compares the checksums of a `.pt` file too, which takes another reading.
        stand_ins: lets in further objects by their names; others than tensors, numbers and text are refused.

    Raises:
        UnreadableError: the file is damaged or holds something else.
        CosyFlowError: there is no such file.
    """
    if not path.is_file():
        raise CosyFlowError(f"{path}: no such checkpoint file")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path, mapped, verified, stand_ins)


def write_file(content: Any, uri: str) -> None:
    """Writes a `.pt` file that appears whole under its name, or not at all, and reads it back.

    Raises:
        PlaceError: it cannot be written, or other bytes are read than were written.
    """
    with storage.open_write(uri) as stream:
        hashing = _Hashing(stream)
        torch.save(content, cast(BinaryIO, hashing))
    if storage.digest(uri) != hashing.digest.hexdigest():
        raise PlaceError(f"{uri}: other bytes are read than were written; look after the disk, or take another place")


class _Hashing:
    """Passes on what is written, and knows its digest."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._stream.write(data)

    def flush(self) -> None:
        self._stream.flush()


def _read_safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:
        raise UnreadableError(path, "safetensors file", describe(error)) from error


def _read_torch(path: Path, mapped: bool, verified: bool, stand_ins: StandIns) -> Any:
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
        if verified:  # torch.load does not look at the checksums
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        with torch.serialization.safe_globals(list(stand_ins)), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickles of other protocols than PyTorch writes
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_zip)
    except MemoryError as error:
        raise UnreadableError(path, "checkpoint", "it asks for more memory than there is") from error
    except Exception as error:  # unpickling damaged bytes raises nearly every kind
        raise UnreadableError(path, "checkpoint", _why(error, path)) from error


def _why(error: Exception, path: Path) -> str:
    """The reason of torch's error, without its advice to read the file in a way that runs what is in it."""
    text = str(error).strip()
    found = _OBJECT.search(text)
    name = found["name"] if found else next(iter(strange_objects(path)), "")
    if "TorchScript" in text or name.startswith("__torch__"):
        return "it is an export in TorchScript; name the .pt file that it was made of"
    if name:
        return (
            f"it holds {name}, and only tensors, numbers and text are read, as anything else may run code;"
            " save it anew as a state dict"
        )
    first = text.partition("\n")[0]
    return "it is damaged, or holds other things than tensors" if "eights only" in first else first
