"""Keeps what libmpg123 prints about a file away from standard error; the caller gets an error of its own."""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

_STANDARD_ERROR = 2
_OF_THE_DECODER = re.compile(rb"\[?src/libmpg123/|\[[\w./]*libmpg123|Note: |Warning: |$")
_lock = threading.Lock()
_open = 0
_kept: tuple[int, IO[bytes]] | None = None


@contextmanager
def quiet_mpeg() -> Iterator[None]:
    """The decoder has no other switch: what goes to descriptor 2 during the `with` body is kept, and what is not the
    decoder's is printed when the last of the bodies, which may overlap in several threads, has ended."""
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
        _kept = original, tempfile.TemporaryFile()  # noqa: SIM115 - closed in _end
        os.dup2(_kept[1].fileno(), _STANDARD_ERROR)


def _end() -> None:
    global _open, _kept
    with _lock:
        _open -= 1
        if _open or _kept is None:
            return
        (original, file), _kept = _kept, None
        os.dup2(original, _STANDARD_ERROR)
        with file:
            file.seek(0)
            others = [line for line in file if not _OF_THE_DECODER.match(line)]
        if others:
            os.write(original, b"".join(others))
        os.close(original)
