"""Paths and addresses as people write them: with a tilde, in quotation marks, or copied from Windows."""

from __future__ import annotations

import os
import re

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\[^\\]")
_QUOTATION_MARKS = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019"}


def tidy(place: str) -> str:
    """A path or URI without the quotation marks around it and the blanks outside of them, and with the home folder for
    a leading `~`. What a name holds inside stays.

    Raises:
        ValueError: it is a path of Windows, on another system.
    """
    place = _unquoted(place)
    if os.sep == "/" and _WINDOWS.match(place):
        raise ValueError(
            f"{place} is a path of Windows, which has another name on this system, e.g. /mnt/c/... in WSL; name that"
        )
    return os.path.expanduser(place) if place.startswith("~") else place  # noqa: PTH111 - pathlib drops slashes of URIs


def _unquoted(place: str) -> str:
    stripped = place.strip()
    if len(stripped) > 1 and _QUOTATION_MARKS.get(stripped[0]) == stripped[-1]:
        return stripped[1:-1]
    return place
