"""Keeps what libmpg123 prints about a file off standard error; the caller gets an error of its own."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

_STANDARD_ERROR = 2
_OF_THE_DECODER = re.compile(rb"(?:^\n)?^(?:\[src/libmpg123/|Note: |Warning: )[^\n]*\n", re.MULTILINE)


@dataclass
class _Kept:
    """What goes to descriptor 2 meanwhile; `original` leads to where it went before."""

    original: int
    file: IO[bytes]
    shown: int = 0

    def show(self) -> None:
        """Prints what is new in it and not the decoder's."""
        size = os.fstat(self.file.fileno()).st_size
        printed = os.pread(self.file.fileno(), size - self.shown, self.shown)
        self.shown += len(printed)
        if others := _OF_THE_DECODER.sub(b"", printed):
            os.write(self.original, others)


_lock = threading.Lock()
_open = 0
_kept: _Kept | None = None


@contextmanager
def quiet_mpeg() -> Iterator[None]:
    """The decoder has no other switch: what goes to descriptor 2 during the `with` body is kept, and what is not the
    decoder's is printed when a body ends. Bodies may overlap in several threads."""
    _begin()
    try:
        yield
    finally:
        _end()


def _begin() -> None:
    global _open, _kept
    with _lock:
        _open += 1
        if _open > 1:
            return
        try:
            original = os.dup(_STANDARD_ERROR)
        except OSError:  # closed: nothing can be printed there
            return
        _kept = _Kept(original, tempfile.TemporaryFile())  # noqa: SIM115 - closed in _end
        os.dup2(_kept.file.fileno(), _STANDARD_ERROR)


def _end() -> None:
    global _open, _kept
    with _lock:
        _open -= 1
        if _kept is None:
            return
        if _open == 0:
            os.dup2(_kept.original, _STANDARD_ERROR)
        _kept.show()
        if _open == 0:
            _kept.file.close()
            os.close(_kept.original)
            _kept = None
