"""Reads utterances with their audio, for the models that make sound.

A shard keeps all its audio in one piece, which must be read whole for any utterance of it: plans for this reader mix
few shards at a time (WINDOW_SHARDS), and it keeps as much compressed audio as CACHED_BYTES.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cosyflow.dataset.alignment import Alignment
from cosyflow.dataset.reader import Utterance, UtteranceReader
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.errors import CosyFlowError

if TYPE_CHECKING:
    import pyarrow as pa

WINDOW_SHARDS = 2
CACHED_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class SpeechUtterance:
    """One utterance with its speech, cut to its tokens (see cosyflow.dataset.alignment)."""

    utterance: Utterance
    waveform: torch.Tensor
    """float32 [frames * hop_size], at the recipe's sample rate."""
    f0: np.ndarray | None
    """float32 [frames] in Hz, 0 without voice; None unless the reader was asked for it."""


@dataclass(frozen=True, eq=False)
class _ShardAudio:
    audio: pa.ChunkedArray
    f0: tuple[np.ndarray, np.ndarray] | None


class SpeechReader:
    """Reads utterances by their row in an index. It can be pickled.

    Args:
        index: the (filtered) index that plans are made of.
        alignment: how long the audio of its tokens is.
        embeddings: whether speaker embeddings are needed.
        f0: whether f0 is needed.
        speech_ids: valid speech tokens are below it; None leaves them unchecked.
        cached_bytes: audio of the last used shards is kept up to this size, and always that of one shard.
    """

    def __init__(
        self,
        index: UtteranceIndex,
        alignment: Alignment,
        embeddings: bool = True,
        f0: bool = False,
        speech_ids: int | None = None,
        cached_bytes: int = CACHED_BYTES,
    ) -> None:
        self.index = index
        self.alignment = alignment
        self.f0 = f0
        self.cached_bytes = cached_bytes
        self._tokens = UtteranceReader(index, embeddings=embeddings, speech_ids=speech_ids)
        self._cache: OrderedDict[int, _ShardAudio] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict()}

    def read(self, rows: Sequence[int] | np.ndarray) -> list[SpeechUtterance]:
        """The utterances of some rows of the index, in that order.

        Raises:
            CosyFlowError: what UtteranceReader raises; or audio that cannot be decoded, or audio or f0 that is not as
                long as the speech tokens say. The message names file and utterance.
        """
        return [self._read(int(row), utterance) for row, utterance in zip(rows, self._tokens.read(rows), strict=True)]

    def _read(self, row: int, utterance: Utterance) -> SpeechUtterance:
        # these need libsndfile and Arrow, without which models and trainer can be imported
        from cosyflow.audio.speech import load_speech
        from cosyflow.dataset.shard import F0_COLUMN

        index = self.index
        shard, place = int(index.shard[row]), int(index.row[row])
        columns, uri = self._audio(shard), index.shards[shard]
        tokens = len(utterance.speech_token)
        name = f"{uri}: utterance {utterance.utt}"
        waveform = load_speech(columns.audio[place].as_py() or b"", self.alignment.sample_rate, name)
        try:
            aligned = self.alignment.align(waveform, tokens, utterance.utt)
        except CosyFlowError as error:
            raise CosyFlowError(f"{uri}: {error}") from error
        f0 = None
        if columns.f0 is not None:
            values, offsets = columns.f0
            f0 = values[offsets[place] : offsets[place + 1]]
            frames = self.alignment.frames(tokens)
            if len(f0) != frames:
                raise CosyFlowError(
                    f"{name}: {F0_COLUMN} has {len(f0)} frames, its {tokens} speech tokens stand for {frames}; was the"
                    " shard made with another recipe? make it again with the parquet stage and --f0"
                )
        return SpeechUtterance(utterance, aligned, f0)

    def _audio(self, shard: int) -> _ShardAudio:
        """A shard's columns, from the cache or read now; the least recently used ones make room."""
        if shard in self._cache:
            self._cache.move_to_end(shard)
        else:
            self._cache[shard] = self._load(self.index.shards[shard])
            while len(self._cache) > 1 and sum(kept.audio.nbytes for kept in self._cache.values()) > self.cached_bytes:
                self._cache.popitem(last=False)
        return self._cache[shard]

    def _load(self, uri: str) -> _ShardAudio:
        from cosyflow.dataset.shard import F0_COLUMN, open_shard, read_columns, read_lists

        with open_shard(uri) as file:
            table = read_columns(uri, file, ["audio_data", *([F0_COLUMN] if self.f0 else [])])
            return _ShardAudio(table["audio_data"], read_lists(uri, table, F0_COLUMN) if self.f0 else None)
