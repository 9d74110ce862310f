"""Checks that run before anything below a folder is written or removed, wherever in this process that happens.

Whoever has a folder to itself for a time (cosyflow.lease) makes sure in this way that it still has it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LEASES = ".leases"
"""The folder below a folder that says who works there. No listing of the folder shows it, and no fence encloses it."""

_fences: list[tuple[str, Callable[[], None]]] = []


@contextmanager
def fenced(folder: str, check: Callable[[], None]) -> Iterator[None]:
    """Has `check`, which may raise, run before each change below a local folder or s3:// prefix in the `with` body."""
    fence = (_plain(folder), check)
    _fences.append(fence)
    try:
        yield
    finally:
        _fences.remove(fence)


def check(uri: str) -> None:
    """Runs the checks of all fenced folders that the file lies below."""
    if _fences:
        place = _plain(uri)
        if f"/{LEASES}/" in place:
            return
        for folder, is_allowed in list(_fences):
            if place.startswith(f"{folder}/"):
                is_allowed()


def _plain(uri: str) -> str:
    return uri.rstrip("/") if "://" in uri else os.path.abspath(uri)  # noqa: PTH100 - symlinks stay
