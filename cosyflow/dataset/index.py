"""Builds the index over the shards of a `data.list`: footers and small columns are read, audio is not.

Shards of the official tools have no notes in their footers; for them the headers of the audio files in them are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow.parquet as pq

from cosyflow.dataset.shard import F0_COLUMN, check_kinds, open_shard, read_columns, read_list, read_lists, read_notes
from cosyflow.dataset.utterances import ABSENT, TokenTable, UtteranceIndex
from cosyflow.errors import CosyFlowError
from cosyflow.progress import Progress

ROWS_AT_A_TIME = 64
TEXTS_AT_A_TIME = 10_000


class TextTokenizer(Protocol):
    """What the index needs of a tokenizer."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...


@dataclass(frozen=True)
class _ShardFacts:
    """What one shard says of its rows."""

    utts: list[str]
    texts: list[str]
    instructs: list[str] | None
    num_samples: np.ndarray
    sample_rate: np.ndarray
    speech_len: np.ndarray
    rejected_len: np.ndarray
    equal_pairs: np.ndarray
    voiced_frames: np.ndarray | None


def build_index(data_list: str, tokenizer: TextTokenizer) -> UtteranceIndex:
    """Reads what a plan needs to know of every utterance of a `data.list`, and tokenises the texts.

    Args:
        data_list: path or URI of a file with one parquet file a line.
        tokenizer: turns texts into token ids.
    Raises:
        CosyFlowError: the list is absent or empty, or a shard is absent or damaged, lacks a column or a field.
    """
    shards = read_list(data_list)
    facts = []
    with Progress("index", len(shards), "shards") as progress:
        for shard in shards:
            facts.append(_read_facts(shard))
            progress.update()
    sizes = [len(fact.utts) for fact in facts]
    instructs = [fact.instructs for fact in facts if fact.instructs is not None]
    if instructs and len(instructs) < len(facts):
        without = next(shard for shard, fact in zip(shards, facts, strict=True) if fact.instructs is None)
        raise CosyFlowError(f"{without}: has no column instruct, other shards of {data_list} have one; make them alike")
    return UtteranceIndex(
        shards=tuple(shards),
        shard=np.repeat(np.arange(len(shards), dtype=np.int32), sizes),
        row=np.concatenate([np.arange(size, dtype=np.int32) for size in sizes]),
        utts=np.array([utt for fact in facts for utt in fact.utts], dtype=object),
        num_samples=np.concatenate([fact.num_samples for fact in facts]),
        sample_rate=np.concatenate([fact.sample_rate for fact in facts]),
        speech_len=np.concatenate([fact.speech_len for fact in facts]),
        rejected_len=np.concatenate([fact.rejected_len for fact in facts]),
        text=_tokenize([text for fact in facts for text in fact.texts], tokenizer),
        instruct=_tokenize([text for texts in instructs for text in texts], tokenizer) if instructs else None,
        voiced_frames=_join_voiced_frames(facts),
        equal_pairs=np.concatenate([fact.equal_pairs for fact in facts]),
    )


def _read_facts(shard: str) -> _ShardFacts:
    with open_shard(shard) as file:
        columns = set(file.schema_arrow.names)
        table = read_columns(shard, file, ["utt", "text", *(["instruct"] if "instruct" in columns else [])])
        fields = {name: table[name].to_pylist() for name in table.column_names}
        for name, values in fields.items():
            if None in values:
                raise CosyFlowError(f"{shard}: row {values.index(None) + 1} has no {name}")
        num_rows = table.num_rows
        num_samples, sample_rate = audio_lengths(shard, file, fields["utt"])
        return _ShardFacts(
            utts=fields["utt"],
            texts=fields["text"],
            instructs=fields.get("instruct"),
            num_samples=num_samples,
            sample_rate=sample_rate,
            speech_len=speech_lengths(shard, file, num_rows),
            rejected_len=_list_lengths(shard, file, "reject_speech_token", num_rows),
            equal_pairs=_equal_pairs(shard, file, num_rows),
            voiced_frames=_voiced_frames(shard, file),
        )


def audio_lengths(shard: str, file: pq.ParquetFile, utts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Samples (int64) and sample rate in Hz (int32) of each row."""
    notes = read_notes(shard, file)
    if notes is not None:
        num_samples, sample_rate = notes.num_samples, notes.sample_rate
    else:
        num_samples, sample_rate = _read_audio_headers(shard, file, utts)
    return np.array(num_samples, np.int64), np.array(sample_rate, np.int32)


def _read_audio_headers(shard: str, file: pq.ParquetFile, utts: list[str]) -> tuple[list[int], list[int]]:
    from cosyflow.audio.opener import inspect_audio

    if "audio_data" not in file.schema_arrow.names:
        raise CosyFlowError(f"{shard}: has no column audio_data; make it again with the parquet stage")
    check_kinds(shard, file.schema_arrow, ["audio_data"])
    num_samples: list[int] = []
    sample_rate: list[int] = []
    for batch in file.iter_batches(ROWS_AT_A_TIME, columns=["audio_data"], use_threads=False):
        for audio in batch.column(0):
            info = inspect_audio(audio.as_py() or b"", f"{shard}: utterance {utts[len(num_samples)]}")
            num_samples.append(info.num_samples)
            sample_rate.append(info.sample_rate)
    return num_samples, sample_rate


def speech_lengths(shard: str, file: pq.ParquetFile, num_rows: int) -> np.ndarray:
    notes = read_notes(shard, file)
    if notes is not None and notes.speech_tokens is not None and "speech_token" in file.schema_arrow.names:
        return np.array(notes.speech_tokens, np.int32)
    return _list_lengths(shard, file, "speech_token", num_rows)


def _equal_pairs(shard: str, file: pq.ParquetFile, num_rows: int) -> np.ndarray:
    """Whether the rejected speech of each row is the chosen one: bool [rows]."""
    columns = ["speech_token", "reject_speech_token"]
    if not set(columns) <= set(file.schema_arrow.names):
        return np.zeros(num_rows, bool)
    table = read_columns(shard, file, columns)
    (chosen, starts), (rejected, starts_rejected) = (read_lists(shard, table, column) for column in columns)
    equal = np.zeros(num_rows, bool)
    for row in np.flatnonzero((np.diff(starts) == np.diff(starts_rejected)) & (np.diff(starts) > 0)):
        one = chosen[starts[row] : starts[row + 1]]
        equal[row] = np.array_equal(one, rejected[starts_rejected[row] : starts_rejected[row + 1]])
    return equal


def _voiced_frames(shard: str, file: pq.ParquetFile) -> np.ndarray | None:
    """Mel frames with an f0 of each row: int32 [rows]; None where the shard has no f0."""
    if F0_COLUMN not in file.schema_arrow.names:
        return None
    notes = read_notes(shard, file)
    if notes is not None and notes.voiced_frames is not None:
        return np.array(notes.voiced_frames, np.int32)
    values, offsets = read_lists(shard, read_columns(shard, file, [F0_COLUMN]), F0_COLUMN)
    before = np.concatenate([[0], np.cumsum(values > 0)])
    counts: np.ndarray = np.diff(before[offsets]).astype(np.int32)
    return counts


def _join_voiced_frames(facts: Sequence[_ShardFacts]) -> np.ndarray | None:
    """Those of all rows, ABSENT for the rows of shards without f0; None when no shard has it."""
    if all(fact.voiced_frames is None for fact in facts):
        return None
    return np.concatenate(
        [
            np.full(len(fact.utts), ABSENT, np.int32) if fact.voiced_frames is None else fact.voiced_frames
            for fact in facts
        ]
    )


def _list_lengths(shard: str, file: pq.ParquetFile, column: str, num_rows: int) -> np.ndarray:
    """Length of each row's list: int32 [rows]; ABSENT where the shard has no such column, 0 for a null."""
    if column not in file.schema_arrow.names:
        return np.full(num_rows, ABSENT, np.int32)
    _, offsets = read_lists(shard, read_columns(shard, file, [column]), column)
    return np.diff(offsets).astype(np.int32)


def _tokenize(texts: list[str], tokenizer: TextTokenizer) -> TokenTable:
    """Token ids of every text; a text that occurs often is tokenised once."""
    numbers: dict[str, int] = {}
    places = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64, len(texts))
    distinct = list(numbers)
    encoded: list[list[int]] = []
    with Progress("tokenise", len(distinct), "texts") as progress:
        for start in range(0, len(distinct), TEXTS_AT_A_TIME):
            part = distinct[start : start + TEXTS_AT_A_TIME]
            encoded += tokenizer.encode_batch(part)
            progress.update(len(part))
    return TokenTable.of(encoded).select(places)
