"""What a layout is given to read, and what it gives: clips, and counts of everything else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from posixpath import splitext

from cosyflow import storage
from cosyflow.corpus.listing import Found

TEXTS = (".txt", ".lab", ".csv", ".tsv", ".json", ".jsonl", ".md", ".trn", ".textgrid", ".srt")


@dataclass(frozen=True)
class Clip:
    """One utterance as the source has it."""

    name: str
    """Its path or key within the source, without a suffix; the speaker may be one of its folders."""
    text: str
    audio: str | bytes = ""
    """A locator (`cosyflow.audio.locator`), or the bytes of an audio file."""
    suffix: str = ""
    """Of those bytes, with a dot."""
    speaker: str = ""
    problem: str = ""
    """Why it cannot be used, where reading it showed that."""
    instruct: str | None = None


@dataclass(frozen=True)
class Columns:
    """Names of columns that the user gave; "" leaves the choice to the layout."""

    text: str = ""
    speaker: str = ""
    audio: str = ""


@dataclass
class Source:
    """A folder of speech.

    Attributes:
        root: absolute path or URI.
        files: everything in it.
        columns: what tables call things.
        chosen: the one table or container, relative to `root`, that was named instead of the folder; "" for all.
        ignored: what is no clip, by reason; layouts count here while they are read.
    """

    root: str
    files: list[Found]
    columns: Columns = field(default_factory=Columns)
    chosen: str = ""
    ignored: Counter[str] = field(default_factory=Counter)

    def uri(self, path: str) -> str:
        return storage.join(self.root, path)

    def with_suffix(self, *suffixes: str) -> list[Found]:
        """Readable files with one of these endings (lower case): the chosen one, or all."""
        return [
            each
            for each in self.files
            if each.path.lower().endswith(suffixes)
            and not (each.is_hidden or each.problem)
            and self.chosen in ("", each.path)
        ]

    @cached_property
    def audio(self) -> dict[str, Found]:
        """Audio files by path."""
        return {each.path: each for each in self.files if each.is_audio}

    def ignore_rest(self, used: Iterable[str]) -> None:
        """Counts the files that are none of `used`, by reason."""
        names = set(used)
        for each in self.files:
            if each.path not in names:
                self.ignored[_why_ignored(each)] += 1


def _why_ignored(each: Found) -> str:
    if each.is_hidden:
        return "hidden files"
    if each.problem:
        return each.problem.partition(" (")[0].removeprefix("a ")
    if each.is_audio:
        return "audio without a transcript"
    return "transcripts and other texts" if each.suffix in TEXTS else "other files"


def without_suffix(path: str) -> str:
    return splitext(path)[0]


def one_line(text: object) -> str:
    """A transcript without line ends and outer blanks; "" for what is no text."""
    return " ".join(text.split()) if isinstance(text, str) else ""
