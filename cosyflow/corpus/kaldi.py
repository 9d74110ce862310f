"""Kaldi files: wav.scp, text, utt2spk, spk2utt, if wanted instruct, and segments. A line is `UTTERANCE VALUE`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from cosyflow import storage
from cosyflow.audio.locator import Locator, is_local_file
from cosyflow.corpus.names import printable, why_no_name
from cosyflow.corpus.pipes import COMMAND_ADVICE, absolute_path, is_command, operands
from cosyflow.corpus.segments import SEGMENTS, Segment, parse_segments
from cosyflow.errors import CosyFlowError

WAV_SCP, TEXT, UTT2SPK, SPK2UTT, INSTRUCT = "wav.scp", "text", "utt2spk", "spk2utt", "instruct"
NAMED_IN_ERRORS = 3
_SEPARATOR = re.compile(r"[ \t]+")
_NOT_IN_A_LINE = re.compile(r"[\r\n\ud800-\udfff]")


@dataclass(frozen=True)
class KaldiUtterance:
    """One utterance: `wav` locates its audio (`cosyflow.audio.locator`; spaces are allowed), `text` is what is said."""

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


@dataclass(frozen=True)
class KaldiSource:
    """An utterance as it stands in Kaldi files, whose names and recording nobody has looked at."""

    utterance: KaldiUtterance
    """Its `wav` is the entry of wav.scp, "" where there is none for the recording of a segment."""
    segment: Segment | None = None
    problem: str = ""
    """What the files lack of it; "" when it is in all of them."""


@dataclass(frozen=True)
class KaldiSources:
    """The utterances of a folder in the order of its wav.scp or segments."""

    sources: Sequence[KaldiSource]
    unused_recordings: int
    """Lines of wav.scp of which no segment is a part."""


def read_kaldi(directory: str) -> KaldiData:
    """Reads and validates a folder of Kaldi files (UTF-8), also with `segments`.

    Raises:
        CosyFlowError: a file is missing or not UTF-8, a line lacks its value, an utterance is there twice, has a name
            that is none or is the output of a command, or the files do not name the same utterances. The message names
            file and line, or the first utterances.
    """
    utterances = []
    for source in read_sources(directory, must_agree=True).sources:
        utterance, segment = source.utterance, source.segment
        if segment is not None:
            if not utterance.wav:
                path = storage.join(directory, SEGMENTS)
                raise CosyFlowError(f"{path}: {utterance.utt} is of {segment.recording}, which wav.scp does not name")
            if not is_command(utterance.wav):
                part = segment.of(Locator.parse(utterance.wav), segment.end)
                utterance = replace(utterance, wav=str(part))
        _require_writable(directory, utterance)
        utterances.append(utterance)
    return KaldiData(utterances)


def read_sources(directory: str, must_agree: bool = False) -> KaldiSources:
    """Reads a folder of Kaldi files; raises CosyFlowError as `read_kaldi`, but not for what one utterance is like.

    Args:
        must_agree: also raise when the files do not name the same utterances. Otherwise those that one of them lacks
            come last, or where they are, with what they lack.
    """
    wavs = _read_table(directory, WAV_SCP)
    tables = {TEXT: _read_table(directory, TEXT, may_be_empty=True), UTT2SPK: _read_table(directory, UTT2SPK)}
    if storage.exists(storage.join(directory, INSTRUCT)):
        tables[INSTRUCT] = _read_table(directory, INSTRUCT)
    if not wavs:
        raise CosyFlowError(f"{storage.join(directory, WAV_SCP)} names no utterance")
    segments = _read_segments(directory)
    audio_in, audio = (WAV_SCP, list(wavs)) if segments is None else (SEGMENTS, list(segments))
    if must_agree:
        for file, table in tables.items():
            _require_same(directory, audio_in, audio, file, table)
    named = {audio_in: dict.fromkeys(audio, ""), **tables}
    sources = []
    for utt in dict.fromkeys(utt for table in named.values() for utt in table):
        segment = segments.get(utt) if segments else None
        wav = wavs.get(segment.recording if segment else utt, "") if utt in named[audio_in] else ""
        lacking = [file for file, table in named.items() if utt not in table]
        there = next(file for file, table in named.items() if utt in table)
        problem = f"is in {there} and not in {' and '.join(lacking)}" if lacking else ""
        text, spk, instruct = (tables.get(file, {}).get(utt) for file in (TEXT, UTT2SPK, INSTRUCT))
        sources.append(KaldiSource(KaldiUtterance(utt, wav, text or "", spk or "", instruct), segment, problem))
    speakers = tables[UTT2SPK]
    if storage.exists(storage.join(directory, SPK2UTT)) and not any(map(why_no_name, speakers.values())):
        _check_spk2utt(directory, speakers)
    used = {segment.recording for segment in segments.values()} if segments else wavs.keys()
    return KaldiSources(sources, len(wavs.keys() - used))


def _read_segments(directory: str) -> dict[str, Segment] | None:
    path = storage.join(directory, SEGMENTS)
    return parse_segments(path, _read_table(directory, SEGMENTS)) if storage.exists(path) else None


def wavs_of(directory: str) -> list[str]:
    """The addresses, sorted, of the audio files that a folder's wav.scp names; none for a folder without one.

    A relative path is meant from the folder, or else from the working directory, as `cosyflow.corpus.prepare` reads it.
    Of a part of a file it is the file, of a command the file that it reads.
    """
    if not storage.exists(storage.join(directory, WAV_SCP)):
        return []
    files = set()
    for entry in _read_table(directory, WAV_SCP).values():
        if is_command(entry):
            files.update(operands(entry, directory))
        else:
            files.add(Locator.parse(absolute_wav(entry, directory)).file)
    return sorted(files)


def absolute_wav(wav: str, directory: str) -> str:
    """Where an entry of a folder's wav.scp leads to. A file that is named like a part of another comes first."""
    path = absolute_path(wav, directory)
    if "://" not in path and is_local_file(path):
        return str(Locator(path))
    meant = Locator.parse(wav)
    return str(replace(meant, file=absolute_path(meant.file, directory)))


def write_kaldi(data: KaldiData, directory: str) -> list[str]:
    """Writes the utterances in their order; returns the names of the files.

    Raises:
        CosyFlowError: a name, path, text or speaker has a character that its file cannot hold.
    """
    for utterance in data.utterances:
        _require_writable(directory, utterance)
    tables = {
        WAV_SCP: {utterance.utt: utterance.wav for utterance in data.utterances},
        TEXT: {utterance.utt: utterance.text for utterance in data.utterances},
        UTT2SPK: {utterance.utt: utterance.spk for utterance in data.utterances},
        SPK2UTT: {spk: " ".join(utts) for spk, utts in data.utterances_by_speaker.items()},
    }
    if data.has_instruct:
        tables[INSTRUCT] = {utterance.utt: utterance.instruct or "" for utterance in data.utterances}
    for name, table in tables.items():
        content = "".join(f"{key} {value}\n" for key, value in table.items())
        storage.write_text(storage.join(directory, name), content)
    return list(tables)


def why_unwritable(utterance: KaldiUtterance) -> tuple[str, str] | None:
    """The file that cannot hold an utterance, and why; None when all can."""
    utt = printable(utterance.utt)
    if reason := why_no_name(utterance.utt):
        return WAV_SCP, f"'{utt}' is no name of an utterance, it {reason}; rename it"
    if reason := why_no_name(utterance.spk):
        return UTT2SPK, f"the speaker of {utt} {reason}: '{printable(utterance.spk)}'; rename it"
    if is_command(utterance.wav):
        return WAV_SCP, f"{utt} is the output of a command; {COMMAND_ADVICE}"
    for file, value in ((WAV_SCP, utterance.wav), (TEXT, utterance.text), (INSTRUCT, utterance.instruct or "")):
        if not is_writable(value):
            return file, f"'{utt}' with value {value!a} does not fit into one line; rename or correct it"
    return None


def is_writable(value: str) -> bool:
    """Whether a path or text fits into one line."""
    return not _NOT_IN_A_LINE.search(value) and value == value.strip(" \t")


def _require_writable(directory: str, utterance: KaldiUtterance) -> None:
    if problem := why_unwritable(utterance):
        file, reason = problem
        raise CosyFlowError(f"{storage.join(directory, file)}: {reason}")


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


def _require_same(directory: str, first: str, ours: Collection[str], second: str, theirs: Collection[str]) -> None:
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


def _check_spk2utt(directory: str, speakers: Mapping[str, str]) -> None:
    listed = {spk: set(_SEPARATOR.split(utts)) for spk, utts in _read_table(directory, SPK2UTT).items()}
    expected: dict[str, set[str]] = {}
    for utt, spk in speakers.items():
        expected.setdefault(spk, set()).add(utt)
    for spk in sorted(listed.keys() | expected.keys()):
        wrong = listed.get(spk, set()) ^ expected.get(spk, set())
        if wrong:
            raise CosyFlowError(f"{directory}: utt2spk and spk2utt disagree about speaker {spk}: {min(wrong)}")
