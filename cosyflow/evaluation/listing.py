"""The fixed list of an evaluation: what is spoken, and the recording whose voice speaks."""

from __future__ import annotations

import hashlib
import json
import random
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from cosyflow import storage
from cosyflow.corpus.kaldi import KaldiUtterance, read_kaldi
from cosyflow.errors import CosyFlowError

COLUMNS = ("utt", "prompt_wav", "prompt_text", "text")
FURTHER = ("wav", "spk")
LONGEST_TEXT = 1000
"""Characters of one utterance; a minute of speech."""


@dataclass(frozen=True)
class Entry:
    """One utterance to speak."""

    utt: str
    prompt_wav: str
    prompt_text: str
    text: str
    wav: str = ""
    """A recording of the text by the prompt's speaker; empty where there is none."""
    spk: str = ""

    @property
    def speaker(self) -> str:
        """Who speaks; without a name, whoever is in the prompt."""
        return self.spk or self.prompt_wav

    @property
    def recording(self) -> str:
        """Recorded speech of this voice: of the text, or else the prompt itself."""
        return self.wav or self.prompt_wav

    @property
    def said(self) -> str:
        """What is said in the recording."""
        return self.text if self.wav else self.prompt_text


def read_list(uri: str) -> list[Entry]:
    """Reads a tab-separated file with the header `utt prompt_wav prompt_text text`, and if wanted `wav` and `spk`.

    A relative path of a recording is looked for in the folder of the file first.

    Raises:
        CosyFlowError: there is no such file, a column is missing, or a line cannot be spoken; file and line are named.
    """
    lines = storage.read_text(uri).splitlines()
    header = lines[0].lstrip("\ufeff").split("\t") if lines else []
    missing = [column for column in COLUMNS if column not in header]
    unknown = [column for column in header if column not in (*COLUMNS, *FURTHER)]
    if missing or unknown or len(set(header)) != len(header):
        raise CosyFlowError(
            f"{uri}:1: the header is {' '.join(header) or 'empty'}, write {' '.join(COLUMNS)} with tabs between them"
        )
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        place, values = f"{uri}:{number}", line.split("\t")
        if len(values) != len(header):
            raise CosyFlowError(f"{place}: {len(values)} columns, the header has {len(header)}; separate with tabs")
        entry = _placed(Entry(**dict(zip(header, map(str.strip, values), strict=True))), storage.parent(uri))
        if entry.utt in entries:
            raise CosyFlowError(f"{place}: {entry.utt} is there already; give each utterance a name of its own")
        _check(entry, place)
        entries[entry.utt] = entry
    if not entries:
        raise CosyFlowError(f"{uri}: names no utterance; write a line for each below the header")
    return list(entries.values())


def make_list(directories: Sequence[str], seed: int, count: int = 0) -> list[Entry]:
    """A list of Kaldi folders: each text is spoken with another utterance of its speaker as prompt, drawn by seed.

    Args:
        directories: folders with wav.scp and the other Kaldi files, local or s3://.
        count: at most that number of utterances, drawn too; 0 is all.

    Utterances whose speaker has no other are left out. The order is that of the utterances' names.

    Raises:
        CosyFlowError: a folder cannot be read, or no speaker has two utterances.
    """
    utterances = [each for directory in directories for each in read_kaldi(directory).utterances]
    usable = [each for each in utterances if why_not(each.text) is None]
    by_speaker: dict[str, list[KaldiUtterance]] = {}
    for each in sorted(usable, key=lambda each: each.utt):
        by_speaker.setdefault(each.spk, []).append(each)
    entries = []
    for speaker, own in by_speaker.items():
        for each in own:
            others = [other for other in own if other.utt != each.utt]
            if others:
                prompt = _random(seed, "prompt", each.utt).choice(others)
                entries.append(Entry(each.utt, prompt.wav, prompt.text, each.text, each.wav, speaker))
    if not entries:
        raise CosyFlowError(f"{', '.join(directories)}: no speaker has two utterances, one of them for the prompt")
    if count and count < len(entries):
        entries = _random(seed, "utterances").sample(entries, count)
    return sorted(entries, key=lambda entry: entry.utt)


def write_list(entries: Sequence[Entry], uri: str) -> None:
    """Writes what `read_list` reads."""
    header = (*COLUMNS, *FURTHER)
    rows = [header, *(tuple(getattr(entry, column) for column in header) for entry in entries)]
    storage.write_text(uri, "".join("\t".join(row) + "\n" for row in rows))


def digest_of(entries: Sequence[Entry], recordings: Mapping[str, str]) -> str:
    """SHA-256 of a list by content; `recordings` has the digest of each recording, by its address."""
    rows = []
    for entry in entries:
        content = {"prompt_wav": recordings[entry.prompt_wav], "wav": recordings.get(entry.wav, "")}
        rows.append(asdict(entry) | content)
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def recordings_of(entries: Sequence[Entry]) -> list[str]:
    """The address of each recording of a list, once."""
    return list(dict.fromkeys(wav for entry in entries for wav in (entry.prompt_wav, entry.wav) if wav))


def why_not(text: str) -> str | None:
    """Why a text cannot be spoken; None when it can."""
    if not text.strip():
        return "the text is empty"
    if len(text) > LONGEST_TEXT:
        return f"the text has {len(text):,} characters, an utterance has at most {LONGEST_TEXT:,}"
    if not any(unicodedata.category(character)[0] in "LN" for character in text):
        return f"the text {text.strip()[:20]!r} has neither letter nor digit"
    return None


def _check(entry: Entry, place: str) -> None:
    if not entry.utt:
        raise CosyFlowError(f"{place}: the utterance has no name; give it one")
    for name, text in (("text", entry.text), ("prompt_text", entry.prompt_text)):
        if reason := why_not(text):
            raise CosyFlowError(f"{place}: {name}: {reason}; change it or remove the line")
    if not entry.prompt_wav:
        raise CosyFlowError(f"{place}: prompt_wav is empty; name a recording of the voice")


def _placed(entry: Entry, folder: str) -> Entry:
    def place(wav: str) -> str:
        if not wav or storage.is_remote(wav) or wav.startswith("/"):
            return wav
        beneath = storage.join(folder, wav)
        return beneath if storage.exists(beneath) else wav

    return Entry(**asdict(entry) | {"prompt_wav": place(entry.prompt_wav), "wav": place(entry.wav)})


def _random(seed: int, *names: str) -> random.Random:
    digest = hashlib.sha256("\0".join((str(seed), *names)).encode()).digest()
    return random.Random(digest)
