"""Data sets of Hugging Face on disk: Arrow or Parquet files with a column of audio, read without the package datasets.

Audio is a struct of `bytes` and `path`, of `array` and `sampling_rate`, plain bytes, or the path of a file.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from cosyflow import storage
from cosyflow.corpus.importing import columns
from cosyflow.corpus.importing.columns import Chosen
from cosyflow.corpus.importing.files import AudioFiles
from cosyflow.corpus.importing.source import Clip, Columns, Source, one_line, without_suffix
from cosyflow.corpus.listing import AUDIO_SUFFIXES, Found
from cosyflow.errors import Problem
from cosyflow.unexpected import reading

CONTAINERS = (".parquet", ".arrow")
ROWS_AT_A_TIME = 16
_MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"FORM": ".aiff"}


def recognise(source: Source) -> bool:
    return any(_choose(_schema(source.uri(each.path)), source.columns) for each in source.with_suffix(*CONTAINERS))


def read(source: Source) -> Iterator[Clip]:
    files = AudioFiles(source)
    used: set[str] = set()
    for each in source.with_suffix(*CONTAINERS):
        uri = source.uri(each.path)
        chosen = _choose(_schema(uri), source.columns)
        if chosen is None:
            continue
        used.add(each.path)
        names = [chosen.text, chosen.audio, *([chosen.speaker] if chosen.speaker else [])]
        for number, row in enumerate(_rows(uri, list(dict.fromkeys(names))), start=1):
            clip, path = _clip(source, files, chosen, row, each, number)
            used.add(path)
            yield clip
    source.ignore_rest(used)


def missing_columns(source: Source) -> list[Problem]:
    """Columns that were asked for and that no file has."""
    names = [_schema(source.uri(each.path)).names for each in source.with_suffix(*CONTAINERS)]
    return min((columns.missing(each, source.columns) for each in names), key=len, default=[])


def _choose(schema: pa.Schema, wanted: Columns) -> Chosen | None:
    audio = wanted.audio or next((field.name for field in schema if _holds_audio(field.type)), "")
    return columns.choose(schema.names, Columns(wanted.text, wanted.speaker, audio))


def _holds_audio(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        names = {kind.field(place).name for place in range(kind.num_fields)}
        return "bytes" in names or {"array", "sampling_rate"} <= names
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _schema(uri: str) -> pa.Schema:
    with storage.open_read(uri) as stream, reading(uri, "an Arrow or Parquet file", "fetch it again"):
        schema = pq.read_schema(stream) if uri.lower().endswith(".parquet") else _open_arrow(stream).schema
        _read_names(schema)
        return schema


def _read_names(fields: Iterable[pa.Field]) -> None:
    """Raises UnicodeDecodeError when a column has a name, or one in it, that is no UTF-8: Arrow reads them late."""
    for field in fields:
        _ = field.name  # which decodes it
        _read_names(field.type.field(place) for place in range(field.type.num_fields))


def _open_arrow(stream: Any) -> Any:
    """A reader of the stream format, which `datasets` writes, or of the file format."""
    try:
        return pa.ipc.open_stream(stream)
    except pa.ArrowInvalid:
        stream.seek(0)
        return pa.ipc.open_file(stream)


def _rows(uri: str, names: list[str]) -> Iterator[dict[str, Any]]:
    with storage.open_read(uri) as stream, reading(uri, "an Arrow or Parquet file", "fetch it again"):
        batches = _parquet_batches if uri.lower().endswith(".parquet") else _arrow_batches
        for batch in batches(stream, names):
            batch.validate(full=True)  # Arrow itself trusts the offsets in a file, wherever they lead
            yield from batch.to_pylist()


def _parquet_batches(stream: BinaryIO, names: list[str]) -> Iterator[pa.RecordBatch]:
    yield from pq.ParquetFile(stream).iter_batches(ROWS_AT_A_TIME, columns=names, use_threads=False)


def _arrow_batches(stream: BinaryIO, names: list[str]) -> Iterator[pa.RecordBatch]:
    reader = _open_arrow(stream)
    is_file = hasattr(reader, "num_record_batches")
    for batch in map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader:
        for start in range(0, batch.num_rows, ROWS_AT_A_TIME):
            yield batch.select(names).slice(start, ROWS_AT_A_TIME)


def _clip(
    source: Source, files: AudioFiles, chosen: Chosen, row: dict[str, Any], each: Found, number: int
) -> tuple[Clip, str]:
    """A row as a clip, and the path of the source's file that it names."""
    text, value = one_line(row[chosen.text]), row[chosen.audio]
    speaker = row.get(chosen.speaker)
    who = "" if speaker is None else str(speaker).strip()
    place = f"{each.stem}_{number:06d}"
    fields = value if isinstance(value, dict) else {"bytes" if isinstance(value, bytes) else "path": value}
    path = str(fields.get("path") or "")
    name = without_suffix(path) if Found(path).suffix in AUDIO_SUFFIXES else place
    if fields.get("bytes"):
        return Clip(name, text, fields["bytes"], _suffix(path, fields["bytes"]), who), ""
    if fields.get("array") is not None and fields.get("sampling_rate"):
        try:
            return Clip(name, text, _encoded(fields["array"], int(fields["sampling_rate"])), ".wav", who), ""
        except (ValueError, TypeError, RuntimeError) as error:
            return Clip(name, text, problem=f"samples that are none: {error}"), ""
    locator, inside = files.find(path, str(PurePosixPath(each.path).parent))
    problem = "" if locator else f"no audio: row {number} of {source.uri(each.path)} has none"
    return Clip(name, text, locator, speaker=who, problem=problem or files.problem(inside)), inside


def _encoded(array: Sequence[float], sample_rate: int) -> bytes:
    stream = io.BytesIO()
    samples = np.asarray(array, dtype=np.float32)
    soundfile.write(stream, samples.T if samples.ndim > 1 else samples, sample_rate, format="WAV", subtype="FLOAT")
    return stream.getvalue()


def _suffix(path: str, content: bytes) -> str:
    """By what the bytes are, else by the name."""
    known = next((suffix for magic, suffix in _MAGIC.items() if content.startswith(magic)), "")
    named = Found(path).suffix
    if known in ("", ".ogg") and named in AUDIO_SUFFIXES:
        return named
    return known or (".m4a" if content[4:8] == b"ftyp" else ".mp3")
