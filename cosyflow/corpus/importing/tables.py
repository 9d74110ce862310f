"""Tables with a row for each utterance: CSV, TSV, JSONL, LJSpeech's metadata.csv, and MagicData's TRANS.txt."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from cosyflow import storage
from cosyflow.corpus.importing import columns
from cosyflow.corpus.importing.columns import Chosen
from cosyflow.corpus.importing.files import AudioFiles
from cosyflow.corpus.importing.source import Clip, Source, one_line, without_suffix
from cosyflow.errors import CosyFlowError, Problem

SUFFIXES = (".csv", ".tsv", ".jsonl", ".psv")
TRANS = "trans.txt"
UNCHECKED = ("invalidated.tsv", "other.tsv", "reported.tsv")
"""Tables of Common Voice with what its speakers got wrong, or nobody has listened to."""
_DELIMITERS = "\t|,;"
_LONGEST_FIELD = 1 << 20
_HEAD_BYTES = 1 << 16
_LOOKED_AT = 5
"""Rows in which the column of audio is seen."""
AUDIO, WRITTEN, SPOKEN = "1", "2", "3"
"""Columns of a table without a header, as LJSpeech has them; SPOKEN has numbers written out."""


@dataclass(frozen=True)
class Table:
    """A table in memory. Without a header the columns are called 1, 2, ..."""

    path: str
    names: Sequence[str]
    rows: Sequence[dict[str, Any]]
    has_header: bool


def recognise(source: Source) -> bool:
    return any(_chosen_columns(source, table) for table in _tables(source, whole=False))


def missing_columns(source: Source) -> list[Problem]:
    """Columns that were asked for and that no table has."""
    lacking = [columns.missing(table.names, source.columns) for table in _tables(source, whole=False)]
    return min(lacking, key=len, default=[])


def read(source: Source) -> Iterator[Clip]:
    files = AudioFiles(source)
    used: set[str] = set()
    named: dict[str, str] = {}
    for table in _tables(source):
        chosen = _chosen_columns(source, table)
        if chosen is None:
            continue
        folder = str(PurePosixPath(table.path).parent)
        for number, row in enumerate(table.rows, start=1):
            clip, path = _clip(files, chosen, row, folder, f"{table.path} row {number}")
            if not isinstance(clip.audio, str) or not clip.audio:
                yield clip
            elif clip.audio in named:
                if named[clip.audio] == clip.text:
                    source.ignored["rows that name the same audio again"] += 1
                else:
                    yield Clip(
                        clip.name, clip.text, problem=f"another text for the same audio: {table.path} row {number}"
                    )
            else:
                named[clip.audio] = clip.text
                used.add(path)
                yield clip
    source.ignore_rest(used)


def _clip(files: AudioFiles, chosen: Chosen, row: dict[str, Any], folder: str, place: str) -> tuple[Clip, str]:
    value, text = row.get(chosen.audio), one_line(row.get(chosen.text))
    if chosen.text == SPOKEN:
        text = text or one_line(row.get(WRITTEN))
    speaker = "" if row.get(chosen.speaker) is None else str(row[chosen.speaker]).strip()
    if not isinstance(value, str | int) or value == "":
        return Clip(place, text, problem=f"no audio: {place} names none in column {chosen.audio}"), ""
    locator, path = files.find(str(value), folder)
    name = without_suffix(path) if path else without_suffix(str(value).strip())
    problem = "" if locator else f"no audio: there is no file {value}, which {place} names"
    return Clip(name, text, locator, speaker=speaker, problem=problem or files.problem(path)), path


def _chosen_columns(source: Source, table: Table) -> Chosen | None:
    names, wanted = table.names, source.columns
    if table.has_header or len(names) < 2:
        chosen = columns.choose(names, wanted)
        if chosen is None and not wanted.audio and (audio := _column_of_files(source, table)):
            chosen = columns.choose(names, replace(wanted, audio=audio))
        return chosen
    wanted = replace(wanted, audio=wanted.audio or AUDIO, text=wanted.text or (SPOKEN if SPOKEN in names else WRITTEN))
    return columns.choose(names, wanted)


def _column_of_files(source: Source, table: Table) -> str:
    """The column whose first values name audio files; "" when there is none."""
    files, rows = AudioFiles(source), table.rows[:_LOOKED_AT]
    folder = str(PurePosixPath(table.path).parent)
    for name in table.names:
        values = [row.get(name) for row in rows]
        if values and all(isinstance(value, str) and files.find(value, folder)[0] for value in values):
            return name
    return ""


def hint(source: Source) -> str:
    """What there is to choose from, where there are tables and their columns are not known."""
    shown = [f"{table.path} has the columns {', '.join(table.names)}" for table in _tables(source, whole=False)][:1]
    return f"; {shown[0]}: name them as --text-column and --audio-column" if shown else ""


def _tables(source: Source, whole: bool = True) -> Iterator[Table]:
    for each in source.with_suffix(*SUFFIXES, TRANS):
        if PurePosixPath(each.path).name not in UNCHECKED or source.chosen:
            yield _read(source, each.path, whole)


def _text(uri: str, whole: bool) -> str:
    """A table's text, or its first lines alone."""
    if whole or storage.size(uri) <= _HEAD_BYTES:
        return storage.read_text(uri).removeprefix("\ufeff")
    with storage.open_read(uri) as stream:
        head = stream.read(_HEAD_BYTES)
    return head[: head.rfind(b"\n") + 1].decode("utf-8", "replace").removeprefix("\ufeff")


def _read(source: Source, path: str, whole: bool) -> Table:
    uri = source.uri(path)
    text = _text(uri, whole)
    if path.lower().endswith(".jsonl"):
        return _jsonl(uri, path, text)
    first_line = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first_line.count)
    csv.field_size_limit(_LONGEST_FIELD)
    stream = io.StringIO(text, newline="")
    try:
        if delimiter in ",;":
            lines = csv.reader(stream, delimiter=delimiter)
        else:  # a quotation mark there is one of the text
            lines = csv.reader(stream, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        rows = [row for row in lines if row]
    except csv.Error as error:
        raise CosyFlowError(f"{uri}: is no table ({error}); save it as CSV, TSV or JSONL") from error
    if not rows:
        return Table(path, [], [], has_header=True)
    names = [name.strip() for name in rows[0]]
    has_header = _is_header(source, names)
    if has_header:
        rows = rows[1:]
    else:
        names = [str(number) for number in range(1, len(names) + 1)]
    return Table(path, names, [dict(zip(names, row, strict=False)) for row in rows], has_header)


def _is_header(source: Source, names: Sequence[str]) -> bool:
    known = {*columns.TEXT, *columns.AUDIO, *columns.SPEAKER}
    asked = {source.columns.text, source.columns.audio, source.columns.speaker} - {""}
    return bool(asked & set(names)) or any(name.lower().replace(" ", "_").replace("-", "_") in known for name in names)


def _jsonl(uri: str, path: str, text: str) -> Table:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CosyFlowError(f"{uri}:{number}: not JSON ({error}); write one object a line") from error
        if not isinstance(row, dict):
            raise CosyFlowError(f"{uri}:{number}: not a JSON object; write one object a line")
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Table(path, names, rows, has_header=True)
