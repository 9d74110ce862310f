"""What the header of an audio file says about its length, compared with what is there, without decoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from cosyflow.audio.container import flac, mp3, ogg, riff, sphere
from cosyflow.audio.container.facts import Facts, IncompleteError
from cosyflow.audio.container.riff import PLACEHOLDER

__all__ = ["PLACEHOLDER", "Facts", "IncompleteError", "look"]

_HEAD_BYTES = 16


def look(stream: BinaryIO, size: int) -> Facts:
    """Looks at the header and, where that is not enough, at the end of a file of `size` bytes.

    Raises:
        IncompleteError: the file ends before its audio does.
    """
    stream.seek(0)
    head = stream.read(_HEAD_BYTES)
    return _reader(head)(stream, size)


def _reader(head: bytes) -> Callable[[BinaryIO, int], Facts]:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] in (b"", b"WAVE"):
        return riff.look
    if head.startswith(b"OggS"):
        return ogg.look
    if head.startswith(b"fLaC"):
        return flac.look
    if head.startswith(b"NIST_1A"):
        return sphere.look
    if head.startswith(b"ID3") or mp3.is_frame(head):
        return mp3.look
    return lambda stream, size: Facts()
