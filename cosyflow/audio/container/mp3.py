"""MPEG audio: a chain of frames, each of which has its length; some begin with the number of frames (Xing, Info)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from cosyflow.audio.container.facts import Facts, IncompleteError

_KBITS = {  # by (MPEG 1, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44_100, 48_000, 32_000)
_ENOUGH_FRAMES = 4
"""A chain of this length is no accident."""


@dataclass(frozen=True)
class _Frame:
    kind: tuple[int, int, int]
    """Version, layer and sample rate, which all frames of a file share."""
    length: int
    samples: int


def is_frame(head: bytes) -> bool:
    return _frame(head) is not None


def look(stream: BinaryIO, size: int) -> Facts:
    """Follows the chain of frames.

    Raises:
        IncompleteError: the last frame is cut, or fewer are there than the first one announces.
    """
    stream.seek(0)
    data = stream.read(size)
    start, end = _without_tags(data)
    first = _frame(data[start : start + 4])
    if first is None:  # leading junk, or no MPEG audio: the decoder looks for its beginning
        return Facts(is_mpeg=True)
    announced = _announced(data[start : start + first.length])
    position = start if announced is None else start + first.length
    frames = 0
    while position + 4 <= end:
        frame = _frame(data[position : position + 4])
        if frame is None or frame.kind != first.kind:
            position = _next_frame(data, position + 1, end, first.kind)
            continue
        if position + frame.length > end:
            if announced or frames >= _ENOUGH_FRAMES:
                raise IncompleteError("it ends within a frame")
            return Facts(is_mpeg=True)
        frames += 1
        position += frame.length
    if announced:
        if frames < announced:
            raise IncompleteError(f"{frames} of {announced} frames are there")
        return Facts(is_mpeg=True)
    return Facts(num_samples=frames * first.samples, is_mpeg=True)


def _frame(header: bytes) -> _Frame | None:
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    version, layer = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3)
    rate_code, rate_index, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 4 or rate_code in (0, 15) or rate_index == 3:
        return None
    is_mpeg1 = version == 3
    bits = _KBITS[is_mpeg1, layer][rate_code - 1] * 1000
    sample_rate = _RATES[rate_index] // {3: 1, 2: 2, 0: 4}[version]
    if layer == 1:
        return _Frame((version, layer, sample_rate), (12 * bits // sample_rate + padding) * 4, 384)
    samples = 1152 if is_mpeg1 or layer == 2 else 576
    return _Frame((version, layer, sample_rate), samples // 8 * bits // sample_rate + padding, samples)


def _next_frame(data: bytes, position: int, end: int, kind: tuple[int, int, int]) -> int:
    while (position := data.find(b"\xff", position, end)) >= 0:
        frame = _frame(data[position : position + 4])
        if frame and frame.kind == kind:
            return position
        position += 1
    return end


def _announced(frame: bytes) -> int | None:
    """The number of frames that a first frame without audio holds; 0 when it holds none, None when it has audio."""
    for mark in (b"Xing", b"Info"):
        place = frame[:64].find(mark)
        if place >= 0:
            flags = int.from_bytes(frame[place + 4 : place + 8], "big")
            return int.from_bytes(frame[place + 8 : place + 12], "big") if flags & 1 else 0
    return 0 if frame[36:40] == b"VBRI" else None


def _without_tags(data: bytes) -> tuple[int, int]:
    """Where the audio begins and ends: without ID3v2 before it, ID3v1 and APE tags after it."""
    start, end = 0, len(data)
    while data[start : start + 3] == b"ID3" and start + 10 <= end:
        sizes = data[start + 6 : start + 10]
        start += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(sizes, (21, 14, 7, 0), strict=True))
        while start < end and data[start] == 0:  # padding
            start += 1
    if data[end - 128 : end - 125] == b"TAG":
        end -= 128
    if data[end - 32 : end - 24] == b"APETAGEX":
        has_header = data[end - 32 + 23] & 0x80
        end -= int.from_bytes(data[end - 20 : end - 16], "little") + (32 if has_header else 0)
    return start, end
