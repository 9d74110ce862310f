"""FLAC: its last frame says where the audio ends, and a checksum whether all of that frame is there (RFC 9639)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import BinaryIO

from cosyflow.audio.container.facts import Facts, IncompleteError

_STREAMINFO = 8  # position of its content, after the mark and the header of the first block
_TOTAL = _STREAMINFO + 13  # four bits and four bytes: the number of samples
_TAIL_BYTES = 1 << 16
_LONGEST_FRAME = 1 << 22
_MOST_CANDIDATES = 20
"""Headers that are looked at from the end: each costs the checksum of all that follows it."""
_SYNC = re.compile(rb"\xff[\xf8\xf9]")
_BLOCK_SIZES = {1: 192} | {code: 576 << (code - 2) for code in range(2, 6)} | {code: 1 << code for code in range(8, 16)}


@dataclass(frozen=True)
class _Frame:
    number: int
    """Of the frame, or of its first sample."""
    block_size: int
    has_fixed_size: bool


def look(stream: BinaryIO, size: int) -> Facts:
    """Raises IncompleteError when the file lacks samples of its header, or has no length and ends within a frame."""
    stream.seek(0)
    head = stream.read(_TOTAL + 5)
    if len(head) < _TOTAL + 5 or head[4] & 0x7F:  # the first block must be STREAMINFO: the decoder refuses it
        return Facts()
    largest = int.from_bytes(head[_STREAMINFO + 2 : _STREAMINFO + 4], "big")
    promised = int.from_bytes(head[_TOTAL : _TOTAL + 5], "big") & 0xF_FFFF_FFFF
    last = _last_frame(stream, size)
    if last is None and promised:
        return Facts(is_doubtful=True)
    if last is None:
        raise IncompleteError("it ends within a frame")
    first = last.number * largest if last.has_fixed_size else last.number
    there = first + last.block_size
    if there < promised:
        raise IncompleteError(f"{there} of {promised} samples are there")
    if promised == 0:  # the program that wrote it into a pipe could not fill it in
        return Facts({_TOTAL: bytes([head[_TOTAL] & 0xF0 | there >> 32]) + (there & 0xFFFF_FFFF).to_bytes(4, "big")})
    return Facts()


def _last_frame(stream: BinaryIO, size: int) -> _Frame | None:
    """The frame that ends where the file does."""
    length = _TAIL_BYTES
    while True:
        start = max(0, size - length)
        stream.seek(start)
        tail = stream.read(size - start)
        if tail[-128:-125] == b"TAG":  # ID3v1, which taggers of MP3 files append
            tail = tail[:-128]
        candidates = 0
        for match in reversed(list(_SYNC.finditer(tail))):
            frame = _frame(tail[match.start() : match.start() + 16])
            candidates += frame is not None
            if frame and _crc(tail[match.start() :], 0x8005, 16) == 0:
                return frame
            if candidates >= _MOST_CANDIDATES:  # of a whole file the first is nearly always the one
                return None
        if start == 0 or length >= _LONGEST_FRAME:
            return None
        length *= 8


def _frame(header: bytes) -> _Frame | None:
    """A frame's header; None for bytes that only look like one."""
    if len(header) < 6:
        return None
    size_code, rate_code = header[2] >> 4, header[2] & 0xF
    number, position = _coded_number(header)
    if number is None or (size_code != 6 and size_code != 7 and size_code not in _BLOCK_SIZES):
        return None
    if size_code in (6, 7):
        width = size_code - 5
        block_size = int.from_bytes(header[position : position + width], "big") + 1
        position += width
    else:
        block_size = _BLOCK_SIZES[size_code]
    position += {12: 1, 13: 2, 14: 2}.get(rate_code, 0) + 1
    if position > len(header) or _crc(header[:position], 0x07, 8):
        return None
    return _Frame(number, block_size, has_fixed_size=not header[1] & 1)


def _coded_number(header: bytes) -> tuple[int | None, int]:
    """The number that begins at byte 4, written as UTF-8 writes characters, and where it ends."""
    first = header[4]
    ones = 8 - (first ^ 0xFF).bit_length()
    if ones == 1 or ones > 7:
        return None, 4
    number = first & (0x7F >> ones)
    follow = header[5 : 4 + max(ones, 1)]
    for byte in follow:
        if byte >> 6 != 2:
            return None, 4
        number = number << 6 | byte & 0x3F
    return number, 5 + len(follow)


def _crc(data: bytes, polynomial: int, bits: int) -> int:
    table, top, mask = _table(polynomial, bits), bits - 8, (1 << bits) - 1
    value = 0
    for byte in data:
        value = (value << 8 & mask) ^ table[value >> top ^ byte]
    return value


@lru_cache
def _table(polynomial: int, bits: int) -> list[int]:
    table = []
    for byte in range(256):
        value = byte << (bits - 8)
        for _ in range(8):
            value = value << 1 ^ (polynomial if value >> (bits - 1) else 0)
            value &= (1 << bits) - 1
        table.append(value)
    return table
