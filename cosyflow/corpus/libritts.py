"""A tree of speech as LibriTTS is unpacked: SPEAKER/CHAPTER/UTTERANCE.wav and UTTERANCE.normalized.txt.

Any format and any depth will do. The speaker is the folder; only where the tree is deeper than LibriTTS, or has no
folders, it is the beginning of the file's name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cosyflow import storage
from cosyflow.corpus.listing import AUDIO_SUFFIXES, Found, list_all
from cosyflow.corpus.names import UniqueNames, printable
from cosyflow.errors import CosyFlowError

TRANSCRIPT = ".normalized.txt"
DEPTH = 3  # parts of a path within a subset
READ_THREADS = 16  # a corpus has hundreds of thousands of small files, often behind a network
_TEXTS = (".txt", ".tsv", ".csv", ".json", ".jsonl", ".lab", ".md")
_ORDER = {suffix: place for place, suffix in enumerate(AUDIO_SUFFIXES)}


@dataclass(frozen=True)
class LibriTTSFile:
    """One recording of the tree; `transcript` is None when there is no such file, `problem` why it cannot be read."""

    utt: str
    spk: str
    wav: str
    transcript: str | None
    problem: str = ""


@dataclass(frozen=True)
class LibriTTSTree:
    """What a tree holds. Each of its files is either one of `files` or counted in `ignored`, by reason."""

    files: Sequence[LibriTTSFile]
    ignored: dict[str, int]
    disagreement: str
    """How many file names begin with another speaker than their folder, with an example; "" for none."""


def read_libritts(directory: str) -> LibriTTSTree:
    """The recordings of a subset's tree sorted by utterance, with absolute paths (or URIs).

    An utterance is named as its file. Where several folders have a file of the same name, each of them is named by its
    path instead, with underscores for the slashes.

    Raises:
        CosyFlowError: there are none, or a folder cannot be read.
    """
    root = directory if storage.is_remote(directory) else str(Path(directory).absolute())
    found = list_all(root)
    chosen = _one_of_each(found)
    if not chosen:
        raise CosyFlowError(
            f"{root}: neither SPEAKER/CHAPTER/UTTERANCE.wav nor Kaldi files (wav.scp, text, utt2spk);"
            " `cosyflow import` reads other layouts"
        )
    transcripts = {each.path[: -len(TRANSCRIPT)]: each.path for each in found if _is_transcript(each)}
    names, corpus = _utterance_names(chosen), storage.name(root)
    prefix = root.rstrip("/") + "/"
    files = [
        LibriTTSFile(
            utt=names[each],
            spk=_speaker(each, corpus),
            wav=prefix + each.path,
            transcript=prefix + transcripts[each.stem] if each.stem in transcripts else None,
            problem=each.problem,
        )
        for each in chosen
    ]
    stems = {each.stem for each in chosen}
    ignored = Counter(_why_ignored(each, stems) for each in set(found) - set(chosen))
    return LibriTTSTree(
        sorted(files, key=lambda file: file.utt), dict(sorted(ignored.items())), _disagreement(chosen, files)
    )


def _one_of_each(found: Sequence[Found]) -> list[Found]:
    """Audio files; of those in a folder that differ in their suffix alone, the first by AUDIO_SUFFIXES."""
    by_stem: dict[str, Found] = {}
    for each in sorted(found, key=lambda each: (bool(each.problem), _ORDER.get(each.suffix, 0), each.path)):
        if each.is_audio:
            by_stem.setdefault(each.stem, each)
    return sorted(by_stem.values())


def _is_transcript(each: Found) -> bool:
    return each.path.lower().endswith(TRANSCRIPT) and not each.is_hidden and not each.problem


def _utterance_names(chosen: Sequence[Found]) -> dict[Found, str]:
    stems = {each: PurePosixPath(each.stem).name for each in chosen}
    times = Counter(stems.values())
    names = {each: stem for each, stem in stems.items() if times[stem] == 1}
    unique = UniqueNames(stems.values())
    for each in chosen:
        if each not in names:
            names[each] = unique.make(each.stem.replace("/", "_"))
    return names


def _prefix(each: Found) -> str:
    return PurePosixPath(each.stem).name.partition("_")[0]


def _speaker(each: Found, root: str) -> str:
    folders = PurePosixPath(each.path).parts[:-1]
    if not folders:
        return _prefix(each) if "_" in PurePosixPath(each.stem).name else root
    return _prefix(each) if len(folders) >= DEPTH and _prefix(each) in folders else folders[0]


def _disagreement(chosen: Sequence[Found], files: Sequence[LibriTTSFile]) -> str:
    others = [
        (each, file) for each, file in zip(chosen, files, strict=True) if "/" in each.path and file.spk != _prefix(each)
    ]
    if not others:
        return ""
    each, file = others[0]
    return (
        f"{len(others)} of {len(files)} file names do not begin with the speaker that their folder names; the folder is"
        f" taken: {printable(file.spk)} speaks {printable(each.path)}"
    )


def _why_ignored(each: Found, stems: set[str]) -> str:
    if each.is_hidden:
        return "hidden files"
    if each.problem:
        return each.problem.partition(" (")[0].removeprefix("a ")
    if each.is_audio:
        return "other formats of the same utterance"
    if _is_transcript(each) and each.path[: -len(TRANSCRIPT)] not in stems:
        return "transcripts without audio"
    return "transcripts and other texts" if each.suffix in _TEXTS else "other files"


def read_transcript(file: LibriTTSFile) -> str:
    """The first line of the transcript without surrounding blanks; raises CosyFlowError when there is nothing in it."""
    if file.transcript is None:
        stem = file.wav.removesuffix(PurePosixPath(file.wav).suffix)
        raise CosyFlowError(f"no transcript: {stem + TRANSCRIPT} does not exist")
    first_line = re.split(r"[\r\n]", storage.read_text(file.transcript).removeprefix("\ufeff"), maxsplit=1)[0].strip()
    if not first_line:
        raise CosyFlowError(f"empty transcript: {file.transcript}")
    return first_line
