"""How audio is named: the path or URI of a file, or of a part of it as a W3C media fragment, `PATH#t=START,END`.

The times are seconds. `PATH#t=START` goes on to the end of the file, so `PATH#t=0` is the whole of it: this is how a
file whose own name ends like a fragment is written.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from decimal import Decimal

_FRAGMENT = re.compile(r"(?P<file>.+)#t=(?P<start>\d+(?:\.\d+)?)(?:,(?P<end>\d+(?:\.\d+)?))?", re.DOTALL)


@dataclass(frozen=True)
class Locator:
    """A file, and which part of it is meant: from `start` to `end` in seconds, None standing for the file's end."""

    file: str
    start: float = 0.0
    end: float | None = None

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.end is None

    @classmethod
    def parse(cls, text: str) -> Locator:
        """What a locator means. Where only a local file of this very name exists, that file is meant."""
        match = _FRAGMENT.fullmatch(text)
        if match is None or ("://" not in text and not is_local_file(match["file"]) and is_local_file(text)):
            return cls(text)
        return cls(match["file"], float(match["start"]), None if match["end"] is None else float(match["end"]))

    def __str__(self) -> str:
        if self.is_whole and not _FRAGMENT.fullmatch(self.file):
            return self.file
        end = "" if self.end is None else f",{_plain(self.end)}"
        return f"{self.file}#t={_plain(self.start)}{end}"

    def samples(self, sample_rate: int) -> tuple[int, int | None]:
        """The first sample, and the one after the last: round(seconds * sample_rate)."""
        return round(self.start * sample_rate), None if self.end is None else round(self.end * sample_rate)


def is_local_file(path: str) -> bool:
    """Whether there is a file of this name on this machine; False for what cannot be a name."""
    return os.path.isfile(path)  # noqa: PTH113 - pathlib raises for what cannot be a name


def _plain(seconds: float) -> str:
    """The shortest number that is read back the same, never with an exponent."""
    return format(Decimal(repr(seconds)).normalize(), "f")
