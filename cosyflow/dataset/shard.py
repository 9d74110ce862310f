"""The parquet shard: columns and types of the official tools, and notes on the rows in the footer for the planner.

Despite their name, `parquet_000000000.tar` files are plain parquet: snappy, one row group, with the metadata by which
pandas restores a table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cosyflow import storage
from cosyflow.dataset.arrow import list_type, ragged, to_arrow
from cosyflow.errors import CosyFlowError
from cosyflow.places import tidy
from cosyflow.unexpected import reading

NOTES_KEY = b"cosyflow"
NOTES_VERSION = 1
DATA_LIST = "data.list"
F0_COLUMN = "pitch_feat"
PARQUET = b"PAR1"
"""How every parquet file begins."""

COLUMN_TYPES: dict[str, pa.DataType] = {
    "utt": pa.string(),
    "audio_data": pa.binary(),  # the bytes of the audio file
    "wav": pa.string(),
    "text": pa.string(),
    "spk": pa.string(),
    "utt_embedding": list_type(pa.float64()),
    "spk_embedding": list_type(pa.float64()),
    "speech_token": list_type(pa.int64()),
    "instruct": pa.string(),
    "reject_speech_token": list_type(pa.int64()),
    F0_COLUMN: list_type(pa.float32()),  # Hz at mel frames; not in official shards
}


KINDS: dict[pa.DataType, tuple[Callable[[pa.DataType], bool], ...]] = {
    pa.string(): (pa.types.is_string, pa.types.is_large_string),
    pa.binary(): (pa.types.is_binary, pa.types.is_large_binary),
}
"""How the kinds of a column that pandas or others wrote are known."""
LARGEST = 2**31
"""Above what a footer may say of a row: of its samples, tokens or frames."""


@dataclass(frozen=True)
class ShardNotes:
    """What the footer says of the rows, in their order.

    Attributes:
        digest: identifies the rows that went in, so that an interrupted stage knows what it need not write again.
        num_samples: samples of each row's audio, per channel.
        sample_rate: Hz.
        speech_tokens: speech tokens of each row; None when the shard has no such column.
        voiced_frames: mel frames of each row whose f0 is not 0; None when the shard has no such column.
    """

    digest: str
    num_samples: list[int]
    sample_rate: list[int]
    speech_tokens: list[int] | None
    voiced_frames: list[int] | None = None

    def to_json(self) -> str:
        return json.dumps({"version": NOTES_VERSION, **asdict(self)}, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def of(cls, metadata: dict[bytes, bytes] | None) -> ShardNotes | None:
        """The notes among a schema's metadata; None when there are none of this version (as in official shards)."""
        text = (metadata or {}).get(NOTES_KEY)
        if text is None:
            return None
        values = json.loads(text)
        return cls(**values) if values.pop("version", None) == NOTES_VERSION else None


def shard_name(number: int) -> str:
    return f"parquet_{number:09d}.tar"


def write_shard(uri: str, columns: Mapping[str, Sequence[Any]], notes: ShardNotes) -> None:
    """Writes one shard atomically. `columns` has the values of each column; rows count from zero."""
    names = [name for name in COLUMN_TYPES if name in columns]
    num_rows = len(columns["utt"])
    schema = pa.schema(
        [(name, COLUMN_TYPES[name]) for name in names],
        metadata={b"pandas": _pandas_metadata(names, num_rows).encode(), NOTES_KEY: notes.to_json().encode()},
    )
    table = pa.Table.from_arrays([to_arrow(columns[name], COLUMN_TYPES[name]) for name in names], schema=schema)
    with storage.open_write(uri) as stream:
        pq.write_table(table, stream, compression="snappy", row_group_size=num_rows, use_dictionary=["spk", "instruct"])


def _pandas_metadata(names: Sequence[str], num_rows: int) -> str:
    """The metadata by which pandas restores a plain range index."""
    kinds = {
        pa.string(): "unicode",
        pa.binary(): "bytes",
        list_type(pa.float64()): "list[float64]",
        list_type(pa.int64()): "list[int64]",
        list_type(pa.float32()): "list[float32]",
    }

    def describe(name: str) -> dict[str, Any]:
        kind = kinds[COLUMN_TYPES[name]]
        return {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": "object", "metadata": None}

    index = {"kind": "range", "name": None, "start": 0, "stop": num_rows, "step": 1}
    heading = {
        "name": None,
        "field_name": None,
        "pandas_type": "unicode",
        "numpy_type": "object",
        "metadata": {"encoding": "UTF-8"},
    }
    return json.dumps(
        {
            "index_columns": [index],
            "column_indexes": [heading],
            "columns": [describe(name) for name in names],
            "creator": {"library": "pyarrow", "version": pa.__version__},
            "pandas_version": "2.2.0",
        }
    )


@contextmanager
def open_shard(uri: str) -> Iterator[pq.ParquetFile]:
    """Opens a shard for reading.

    Raises:
        CosyFlowError: the file is absent, is no parquet file, or is damaged where the `with` body reads it.
    """
    with storage.open_read(uri) as stream:
        remedy = "make it again with the parquet stage"
        with reading(uri, "a parquet file", remedy), pq.ParquetFile(stream) as file:
            yield file


def read_notes(uri: str, file: pq.ParquetFile) -> ShardNotes | None:
    """The notes of an open shard, None where there are none. Raises CosyFlowError when they do not fit its rows."""
    notes = ShardNotes.of(file.schema_arrow.metadata)
    if notes is None:
        return None
    num_rows, remedy = file.metadata.num_rows, "make it again with the parquet stage"
    for name in ("num_samples", "sample_rate", "speech_tokens", "voiced_frames"):
        values = getattr(notes, name)
        if values is None and name not in ("num_samples", "sample_rate"):
            continue
        if len(values) != num_rows:
            raise CosyFlowError(f"{uri}: its footer describes {len(values)} rows, there are {num_rows}; {remedy}")
        least = 1 if name == "sample_rate" else 0
        if not all(type(value) is int and least <= value < LARGEST for value in values):
            raise CosyFlowError(f"{uri}: {name} in its footer are no numbers of samples, tokens or frames; {remedy}")
    return notes


def read_columns(uri: str, file: pq.ParquetFile, columns: Sequence[str]) -> pa.Table:
    """Reads some columns of an open shard, texts of which are UTF-8. Raises CosyFlowError when it lacks one."""
    lacking = [name for name in columns if name not in file.schema_arrow.names]
    if lacking:
        raise CosyFlowError(f"{uri}: has no column {lacking[0]}; make it again with the stage that adds it")
    check_kinds(uri, file.schema_arrow, columns)
    table = file.read(columns=list(columns), use_threads=False)
    for name in columns:
        if COLUMN_TYPES[name] == pa.string():
            table[name].validate(full=True)  # Arrow takes any bytes for text
    return table


def check_kinds(uri: str, schema: pa.Schema, columns: Sequence[str]) -> None:
    """Raises CosyFlowError when a column of texts or of audio holds something else. Lists are for `read_lists`."""
    for name in columns:
        kind, is_known = schema.field(name).type, KINDS.get(COLUMN_TYPES[name])
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if is_known and not any(each(kind) for each in (*is_known, pa.types.is_null)):
            raise CosyFlowError(
                f"{uri}: {name} is {kind}, not {COLUMN_TYPES[name]}; make it again with the parquet stage"
            )


def read_lists(uri: str, table: pa.Table, column: str) -> tuple[np.ndarray, np.ndarray]:
    """A column of lists as (the values of all rows, offsets of the rows: int64 [rows + 1]); a null is an empty list.

    Raises:
        CosyFlowError: the column holds something else; the message names the file.
    """
    try:
        return ragged(table[column], COLUMN_TYPES[column].value_type)
    except CosyFlowError as error:
        raise CosyFlowError(f"{uri}: {column} is {error}; make it again with the parquet stage") from error


def read_list(uri: str) -> list[str]:
    """The shards that a `data.list` names, in order; a parquet file given in its place is a list of itself.

    Raises:
        CosyFlowError: the list is absent, names nothing, or names a path of another system.
    """
    if storage.is_folder(uri):
        raise CosyFlowError(f"{uri}: is a folder; name the {DATA_LIST} in it")
    if _is_parquet(uri):
        return [uri]
    shards = []
    for number, line in enumerate(storage.read_text(uri).removeprefix("\ufeff").splitlines(), start=1):
        try:
            shards.append(tidy(line.strip()))
        except ValueError as error:
            raise CosyFlowError(f"{uri}:{number}: {error}") from error
    shards = [shard for shard in shards if shard]
    if not shards:
        raise CosyFlowError(f"{uri}: empty list, it names no parquet file")
    if any("\0" in shard for shard in shards):
        raise CosyFlowError(f"{uri}: holds bytes that are no text; name a list of parquet files")
    return shards


def _is_parquet(uri: str) -> bool:
    with storage.open_read(uri) as stream:
        return bytes(stream.read(len(PARQUET))) == PARQUET
