"""What the name of an utterance or a speaker may be: the one rule for those who write Kaldi files and who read them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

BYTE_ORDER_MARK = "\ufeff"
_NOT_IN_NAMES = {"Cc": "a control character", "Cs": "a byte that is not UTF-8"}


def why_no_name(name: str) -> str | None:
    """What makes a name one that the lines `NAME VALUE` of Kaldi files cannot hold; None when they can."""
    if not name:
        return "is empty"
    for character in name:
        if kind := _kind(character):
            return f"has {kind} in it"
    return None


def _kind(character: str) -> str | None:
    if character == " ":
        return "a space"
    if character.isspace():
        return f"a blank (U+{ord(character):04X})"
    if character == BYTE_ORDER_MARK:
        return "a byte order mark (U+FEFF)"
    return _NOT_IN_NAMES.get(unicodedata.category(character))


def printable(name: str) -> str:
    """A name as messages and tables show it: what is no name, or is no text, with its odd characters escaped."""
    return "".join(
        character if character == " " or not _kind(character) else ascii(character)[1:-1] for character in name
    )


def safe_name(name: str) -> str:
    """A name in which an underscore stands for what names cannot have; `unnamed` for an empty one."""
    return "".join("_" if _kind(character) else character for character in name) or "unnamed"


class UniqueNames:
    """Names of which none is given twice."""

    def __init__(self, used: Iterable[str] = ()) -> None:
        self._used = set(used)
        self._last: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._used

    def make(self, name: str) -> str:
        """The name itself, or with the first number from 2 on that makes it a new one."""
        candidate = name
        while candidate in self._used:
            self._last[name] = self._last.get(name, 1) + 1
            candidate = f"{name}_{self._last[name]}"
        self._used.add(candidate)
        return candidate
