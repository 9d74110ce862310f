"""Ogg (Vorbis, Opus): a whole stream ends with a page that is marked as the last one (RFC 3533)."""

from __future__ import annotations

from typing import BinaryIO

from cosyflow.audio.container.facts import Facts, IncompleteError

_CAPTURE = b"OggS"
_LONGEST_PAGE = 27 + 255 + 255 * 255
_END_OF_STREAM = 4


def look(stream: BinaryIO, size: int) -> Facts:
    """Raises IncompleteError when the last page is cut or is not marked as the last."""
    start = max(0, size - 2 * _LONGEST_PAGE)
    stream.seek(start)
    tail = stream.read(size - start)
    page = tail.rfind(_CAPTURE)
    while page >= 0 and tail[page + 4 : page + 5] != b"\0":  # the version of every page; else it is audio
        page = tail.rfind(_CAPTURE, 0, page)
    header = tail[page : page + 27]
    if page < 0 or len(header) < 27:
        raise IncompleteError("it ends within a page")
    table = tail[page + 27 : page + 27 + header[26]]
    if len(table) < header[26] or page + 27 + len(table) + sum(table) > len(tail):
        raise IncompleteError("it ends within a page")
    if not header[5] & _END_OF_STREAM:
        raise IncompleteError("its last page is missing")
    return Facts()
