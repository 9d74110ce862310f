"""Kaldi files: wav.scp, text, utt2spk, spk2utt and, if wanted, instruct. One line an utterance, `UTTERANCE VALUE`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosyflow import storage
from cosyflow.errors import CosyFlowError

WAV_SCP, TEXT, UTT2SPK, SPK2UTT, INSTRUCT = "wav.scp", "text", "utt2spk", "spk2utt", "instruct"
NAMED_IN_ERRORS = 3
_SEPARATOR = re.compile(r"[ \t]+")


@dataclass(frozen=True)
class KaldiUtterance:
    """One utterance: `wav` is a path or URI (spaces are allowed), `text` what is said, as it stands in the file."""

    utt: str
    wav: str
    text: str
    spk: str
    instruct: str | None = None


@dataclass(frozen=True)
class KaldiData:
    """The utterances of a folder in the order of its wav.scp. Either all of them have an instruction or none."""

    utterances: Sequence[KaldiUtterance]

    @property
    def has_instruct(self) -> bool:
        return any(utterance.instruct is not None for utterance in self.utterances)

    @property
    def utterances_by_speaker(self) -> dict[str, list[str]]:
        """Utterance names by speaker, both in the order of the utterances."""
        speakers: dict[str, list[str]] = {}
        for utterance in self.utterances:
            speakers.setdefault(utterance.spk, []).append(utterance.utt)
        return speakers


def read_kaldi(directory: str) -> KaldiData:
    """Reads and validates a folder of Kaldi files (UTF-8).

    Raises:
        CosyFlowError: a file is missing or not UTF-8, a line lacks its value, an utterance is there twice, or the files
            do not name the same utterances. The message names file and line, or the first utterances.
    """
    wavs = _read_table(directory, WAV_SCP)
    texts = _read_table(directory, TEXT, may_be_empty=True)
    speakers = _read_table(directory, UTT2SPK)
    has_instruct = storage.exists(storage.join(directory, INSTRUCT))
    instructs = _read_table(directory, INSTRUCT) if has_instruct else {}
    if not wavs:
        raise CosyFlowError(f"{storage.join(directory, WAV_SCP)} names no utterance")
    _require_same(directory, WAV_SCP, wavs, TEXT, texts)
    _require_same(directory, WAV_SCP, wavs, UTT2SPK, speakers)
    if has_instruct:
        _require_same(directory, WAV_SCP, wavs, INSTRUCT, instructs)
    _refuse_commands(directory, wavs)
    _refuse_spaces(directory, speakers)
    data = KaldiData([KaldiUtterance(utt, wavs[utt], texts[utt], speakers[utt], instructs.get(utt)) for utt in wavs])
    if storage.exists(storage.join(directory, SPK2UTT)):
        _check_spk2utt(directory, data)
    return data


def wavs_of(directory: str) -> list[str]:
    """The addresses, sorted, of the audio files that a folder's wav.scp names; none for a folder without one.

    A relative path is meant from the folder, or else from the working directory, as `cosyflow.corpus.prepare` reads it.
    """
    if not storage.exists(storage.join(directory, WAV_SCP)):
        return []
    return sorted({absolute_wav(wav, directory) for wav in _read_table(directory, WAV_SCP).values()})


def absolute_wav(wav: str, directory: str) -> str:
    """Where an entry of a folder's wav.scp leads to."""
    if "://" in wav or Path(wav).is_absolute():
        return wav
    beside = storage.join(directory, wav)
    if storage.is_remote(directory):
        return beside
    return str((Path(beside) if Path(beside).exists() else Path(wav)).absolute())


def write_kaldi(data: KaldiData, directory: str) -> list[str]:
    """Writes the utterances in their order; returns the names of the files.

    Raises:
        CosyFlowError: a name, path, text or speaker has a character that its file cannot hold.
    """
    tables = {
        WAV_SCP: {utterance.utt: utterance.wav for utterance in data.utterances},
        TEXT: {utterance.utt: utterance.text for utterance in data.utterances},
        UTT2SPK: {utterance.utt: utterance.spk for utterance in data.utterances},
        SPK2UTT: {spk: " ".join(utts) for spk, utts in data.utterances_by_speaker.items()},
    }
    if data.has_instruct:
        tables[INSTRUCT] = {utterance.utt: utterance.instruct or "" for utterance in data.utterances}
    _refuse_commands(directory, tables[WAV_SCP])
    _refuse_spaces(directory, tables[UTT2SPK])
    contents = {name: _format_table(directory, name, table) for name, table in tables.items()}
    for name, content in contents.items():
        storage.write_text(storage.join(directory, name), content)
    return list(contents)


def _read_table(directory: str, file: str, may_be_empty: bool = False) -> dict[str, str]:
    """Value by name, in the order of the lines. Blank lines are skipped, values keep their inner spaces."""
    path = storage.join(directory, file)
    table: dict[str, str] = {}
    first_lines: dict[str, int] = {}
    for number, line in enumerate(storage.read_text(path).removeprefix("\ufeff").split("\n"), start=1):
        fields = _SEPARATOR.split(line.strip(" \t\r"), maxsplit=1)
        utt, value = fields[0], fields[1] if len(fields) > 1 else ""
        if not utt:
            continue
        if not value and not may_be_empty:
            raise CosyFlowError(f"{path}:{number}: {utt} has no value; write `{utt} VALUE`")
        if utt in table:
            raise CosyFlowError(
                f"{path}:{number}: {utt} is there twice, first in line {first_lines[utt]}; every name must be unique"
            )
        table[utt], first_lines[utt] = value, number
    return table


def _format_table(directory: str, file: str, table: Mapping[str, str]) -> str:
    for name, value in table.items():
        if not name or re.search(r"[ \t\r\n]", name) or re.search(r"[\r\n]", value) or value != value.strip(" \t"):
            raise CosyFlowError(
                f"{storage.join(directory, file)}: {name!r} with value {value!r} does not fit into one line"
            )
    return "".join(f"{name} {value}\n" for name, value in table.items())


def _require_same(directory: str, first: str, ours: Mapping[str, str], second: str, theirs: Mapping[str, str]) -> None:
    differences = []
    for file, names in (
        (first, [utt for utt in ours if utt not in theirs]),
        (second, [utt for utt in theirs if utt not in ours]),
    ):
        if names:
            shown = ", ".join(names[:NAMED_IN_ERRORS]) + (", ..." if len(names) > NAMED_IN_ERRORS else "")
            differences.append(f"{len(names)} only in {file} ({shown})")
    if differences:
        raise CosyFlowError(f"{directory}: {first} and {second} disagree: {'; '.join(differences)}")


def _refuse_commands(directory: str, wavs: Mapping[str, str]) -> None:
    for utt, wav in wavs.items():
        if wav.endswith("|"):
            raise CosyFlowError(
                f"{storage.join(directory, WAV_SCP)}: {utt} is the output of a command; write its audio to files"
            )


def _refuse_spaces(directory: str, speakers: Mapping[str, str]) -> None:
    for utt, spk in speakers.items():
        if _SEPARATOR.search(spk):
            raise CosyFlowError(f"{storage.join(directory, UTT2SPK)}: the speaker of {utt} has a space in it: {spk!r}")


def _check_spk2utt(directory: str, data: KaldiData) -> None:
    listed = {spk: set(utts.split()) for spk, utts in _read_table(directory, SPK2UTT).items()}
    expected = {spk: set(utts) for spk, utts in data.utterances_by_speaker.items()}
    for spk in sorted(listed.keys() | expected.keys()):
        wrong = listed.get(spk, set()) ^ expected.get(spk, set())
        if wrong:
            raise CosyFlowError(f"{directory}: utt2spk and spk2utt disagree about speaker {spk}: {min(wrong)}")
