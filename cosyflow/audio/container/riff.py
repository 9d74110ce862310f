"""WAV: the sizes of its chunks, also those that a program wrote that could not seek back to fill them in."""

from __future__ import annotations

import struct
from typing import BinaryIO

from cosyflow.audio.container.facts import Facts, IncompleteError

PLACEHOLDER = 0x7F00_0000
"""From here on a size is none: sox writes 0x7ffff000 into a pipe, arecord 0x80000000, ffmpeg 0xffffffff."""
LONGEST = 0xFFFF_FFFE
_LONGEST_FILE = 1 << 62
_MOST_CHUNKS = 10_000
_DS64 = struct.Struct("<QQQ")  # sizes of RIFF and data in bytes, number of samples


def look(stream: BinaryIO, size: int) -> Facts:
    """Raises IncompleteError when the chunk `data` reaches beyond the end of the file."""
    stream.seek(0)
    start = stream.read(12)
    if len(start) < 12:
        raise IncompleteError(f"its header promises {12 - len(start)} bytes more than are there")
    order = ">" if start.startswith(b"RIFX") else "<"
    (riff_size,) = struct.unpack(f"{order}I", start[4:8])
    position, long_sizes, align = 12, None, 0
    for _ in range(_MOST_CHUNKS):
        if position + 8 > size:
            break
        stream.seek(position)
        chunk, length = struct.unpack(f"{order}4sI", stream.read(8))
        position += 8
        if chunk == b"data":
            there = size - position
            if start[:4] in (b"RF64", b"BW64") and long_sizes is not None:
                facts = _long(there, long_sizes, stream, align)
                # the same by another name, which the decoder does not know (ITU-R BS.2088)
                return facts if start.startswith(b"RF64") else Facts({0: b"RF64", **facts.patches})
            return _short(there, length, riff_size, position, size, order)
        if chunk == b"fmt ":
            align = int.from_bytes(stream.read(14)[12:], "big" if order == ">" else "little")
        if chunk == b"ds64" and position + _DS64.size <= size:
            long_sizes = position
        position += length + length % 2
    else:
        return Facts()
    raise IncompleteError(f"its header promises {position + 8 - size} bytes more than are there")


def _short(there: int, length: int, riff_size: int, position: int, size: int, order: str) -> Facts:
    unfinished = length == 0 and there > 0 and riff_size + 8 != size
    is_whole = riff_size + 8 == size  # then data that are longer than the file are a mistake of its writer
    if unfinished or (there < length and (length >= PLACEHOLDER or is_whole)):
        return Facts({position - 4: struct.pack(f"{order}I", min(there, LONGEST))} if there else {})
    if length > there:
        raise IncompleteError(f"its header promises {length - there} bytes more than are there")
    return Facts()


def _long(there: int, long_sizes: int, stream: BinaryIO, align: int) -> Facts:
    stream.seek(long_sizes)
    _, length, _ = _DS64.unpack(stream.read(_DS64.size))
    if length in (0, 0xFFFF_FFFF) or length >= _LONGEST_FILE:
        sizes = _DS64.pack(there + long_sizes, there, there // (align or 1))
        return Facts({long_sizes: sizes})
    if length > there:
        raise IncompleteError(f"its header promises {length - there} bytes more than are there")
    return Facts()
