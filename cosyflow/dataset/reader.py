"""Reads utterances of an index from their shards: only the columns that are needed, never the audio."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosyflow.dataset.plan import WINDOW_SHARDS
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.errors import CosyFlowError

CACHED_SHARDS = 2 * WINDOW_SHARDS
SMALLEST_NORM = 1e-12  # below it an embedding is left as long as it is


@dataclass(frozen=True, eq=False)
class Utterance:
    """One utterance as a language model is trained on it."""

    utt: str
    text: str
    text_token: np.ndarray
    """int64 [text tokens]."""
    speech_token: np.ndarray
    """int64 [speech tokens]."""
    utt_embedding: np.ndarray | None
    """float32 [192], of length 1; None when the reader was not asked for embeddings."""
    spk_embedding: np.ndarray | None
    """float32 [192], of length 1: the speaker's mean."""
    instruct_token: np.ndarray | None
    """int64 [instruct tokens]; None when the corpus has no instructions."""
    reject_speech_token: np.ndarray | None
    """int64 [tokens] of worse speech for the same text (DPO); None unless the reader was asked for it."""


@dataclass(frozen=True, eq=False)
class _Sequences:
    """A list column of one shard."""

    values: np.ndarray
    offsets: np.ndarray

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


@dataclass(frozen=True, eq=False)
class _ShardColumns:
    utts: list[str]
    texts: list[str]
    speech: _Sequences
    rejected: _Sequences | None
    utt_embedding: np.ndarray | None
    spk_embedding: np.ndarray | None


class UtteranceReader:
    """Reads utterances by their row in an index, keeping the columns of the last used shards. It can be pickled.

    Args:
        index: the (filtered) index that plans are made of.
        embeddings: whether speaker embeddings are needed.
        rejected: whether rejected speech tokens are needed (DPO).
        speech_ids: valid speech tokens are below it; None leaves them unchecked.
        cached_shards: how many shards' columns are kept; about 2 MB each at 1000 utterances a shard.
    """

    def __init__(
        self,
        index: UtteranceIndex,
        embeddings: bool = True,
        rejected: bool = False,
        speech_ids: int | None = None,
        cached_shards: int = CACHED_SHARDS,
    ) -> None:
        self.index = index
        self.embeddings = embeddings
        self.rejected = rejected
        self.speech_ids = speech_ids
        self.cached_shards = cached_shards
        self._cache: OrderedDict[int, _ShardColumns] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict()}

    def read(self, rows: Sequence[int] | np.ndarray) -> list[Utterance]:
        """The utterances of some rows of the index, in that order.

        Raises:
            CosyFlowError: a shard is absent, damaged, lacks a column or has changed since the index was built, or a
                token is outside the vocabulary; the message names file and utterance.
        """
        return [self._read(int(row)) for row in rows]

    def _read(self, row: int) -> Utterance:
        index = self.index
        columns, place = self._columns(int(index.shard[row])), int(index.row[row])
        utt = index.utts[row]
        unchanged = place < len(columns.utts) and columns.utts[place] == utt
        if not unchanged or len(columns.speech[place]) != index.speech_len[row]:
            shard = index.shards[index.shard[row]]
            raise CosyFlowError(f"{shard}: row {place + 1} is no longer the utterance {utt} that was indexed")
        return Utterance(
            utt=utt,
            text=columns.texts[place],
            text_token=index.text[row],
            speech_token=columns.speech[place].astype(np.int64),
            utt_embedding=None if columns.utt_embedding is None else columns.utt_embedding[place],
            spk_embedding=None if columns.spk_embedding is None else columns.spk_embedding[place],
            instruct_token=None if index.instruct is None else index.instruct[row],
            reject_speech_token=None if columns.rejected is None else columns.rejected[place].astype(np.int64),
        )

    def _columns(self, shard: int) -> _ShardColumns:
        """A shard's columns, from the cache or read now; the least recently used ones make room."""
        if shard in self._cache:
            self._cache.move_to_end(shard)
        else:
            self._cache[shard] = self._load(self.index.shards[shard])
            if len(self._cache) > self.cached_shards:
                self._cache.popitem(last=False)
        return self._cache[shard]

    def _load(self, uri: str) -> _ShardColumns:
        names = ["utt", "text", "speech_token"]
        if self.embeddings:
            names += ["utt_embedding", "spk_embedding"]
        if self.rejected:
            names.append("reject_speech_token")
        # needs Arrow, without which models and trainer can be imported
        from cosyflow.dataset.shard import open_shard, read_columns

        with open_shard(uri) as file:
            table = read_columns(uri, file, names)
        utts = table["utt"].to_pylist()
        return _ShardColumns(
            utts=utts,
            texts=table["text"].to_pylist(),
            speech=self._tokens(uri, table, "speech_token", utts),
            rejected=self._tokens(uri, table, "reject_speech_token", utts) if self.rejected else None,
            utt_embedding=_embeddings(uri, table, "utt_embedding", utts) if self.embeddings else None,
            spk_embedding=_embeddings(uri, table, "spk_embedding", utts) if self.embeddings else None,
        )

    def _tokens(self, uri: str, table: Any, column: str, utts: list[str]) -> _Sequences:
        from cosyflow.dataset.shard import read_lists

        values, offsets = read_lists(uri, table, column)
        limit = np.inf if self.speech_ids is None else self.speech_ids
        wrong = np.flatnonzero((values < 0) | (values >= limit))
        if len(wrong):
            utt = utts[int(np.searchsorted(offsets, wrong[0], side="right")) - 1]
            raise CosyFlowError(
                f"{uri}: {column} of utterance {utt} has token {values[wrong[0]]}, valid ones are 0 to {limit - 1};"
                " was it made with the speech tokenizer of another version?"
            )
        return _Sequences(values.astype(np.int32), offsets)


def _embeddings(uri: str, table: Any, column: str, utts: list[str]) -> np.ndarray:
    """Embeddings of a shard, each divided by its Euclidean length: float32 [rows, dimension]."""
    from cosyflow.dataset.shard import read_lists

    values, offsets = read_lists(uri, table, column)
    sizes = np.diff(offsets)
    odd = np.flatnonzero((sizes != sizes[:1]) | (sizes == 0))
    if len(odd):
        utt, size = utts[odd[0]], sizes[odd[0]]
        raise CosyFlowError(f"{uri}: {column} of utterance {utt} has {size} numbers, that of the first one {sizes[0]}")
    matrix = values.astype(np.float32).reshape(len(utts), -1)
    wrong = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if len(wrong):
        raise CosyFlowError(f"{uri}: {column} of utterance {utts[wrong[0]]} is not finite; extract it again")
    norm = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix / np.maximum(norm, SMALLEST_NORM))
