"""What is known of every utterance without reading its audio, as arrays over the whole corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cosyflow.errors import CosyFlowError

ABSENT = -1


@dataclass(frozen=True, eq=False)
class TokenTable:
    """A token sequence for each utterance, in one flat array."""

    values: np.ndarray
    """int32, of all utterances of the corpus."""
    start: np.ndarray
    """int64 [utterances]."""
    length: np.ndarray
    """int32 [utterances]."""

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> TokenTable:
        length = np.fromiter(map(len, sequences), np.int32, len(sequences))
        values = np.fromiter((token for sequence in sequences for token in sequence), np.int32, int(length.sum()))
        return cls.from_lengths(values, length)

    @classmethod
    def from_lengths(cls, values: np.ndarray, length: np.ndarray) -> TokenTable:
        """`values` holds the sequences one after the other."""
        start = np.cumsum(length, dtype=np.int64) - length
        return cls(values.astype(np.int32, copy=False), start, length.astype(np.int32, copy=False))

    def __len__(self) -> int:
        return len(self.length)

    def __getitem__(self, row: int) -> np.ndarray:
        """int64 [tokens]."""
        start = self.start[row]
        return self.values[start : start + self.length[row]].astype(np.int64)

    def select(self, rows: np.ndarray) -> TokenTable:
        return TokenTable(self.values, self.start[rows], self.length[rows])


@dataclass(frozen=True, eq=False)
class UtteranceIndex:
    """One entry for each utterance; every array has the length of the index."""

    shards: tuple[str, ...]
    """URIs of the parquet files."""
    shard: np.ndarray
    """int32: which of `shards` holds the utterance."""
    row: np.ndarray
    """int32: which of that shard's rows it is."""
    utts: np.ndarray
    """object (str): utterance ids."""
    num_samples: np.ndarray
    """int64: samples of audio, per channel."""
    sample_rate: np.ndarray
    """int32: Hz."""
    speech_len: np.ndarray
    """int32: speech tokens, ABSENT where the shard has no such column."""
    rejected_len: np.ndarray
    """int32: tokens of the rejected speech (DPO), ABSENT where there is none."""
    text: TokenTable
    instruct: TokenTable | None
    """The instruction's tokens; None when the corpus has no instructions."""
    voiced_frames: np.ndarray | None = None
    """int32: mel frames with voice, ABSENT in a shard without f0; None when no shard has it."""
    equal_pairs: np.ndarray | None = None
    """bool: the rejected speech is the chosen one; None when no shard has rejected speech."""

    def __len__(self) -> int:
        return len(self.utts)

    @property
    def text_len(self) -> np.ndarray:
        """int32: text tokens."""
        return self.text.length

    @property
    def instruct_len(self) -> np.ndarray:
        """int32: tokens of the instruction, zeros when the corpus has none."""
        return np.zeros(len(self), np.int32) if self.instruct is None else self.instruct.length

    @property
    def seconds(self) -> np.ndarray:
        """float64: seconds of audio."""
        return np.asarray(self.num_samples / self.sample_rate)

    def select(self, rows: np.ndarray) -> UtteranceIndex:
        """The index of some of the utterances: `rows` are positions (int) or a mask (bool)."""
        return UtteranceIndex(
            shards=self.shards,
            shard=self.shard[rows],
            row=self.row[rows],
            utts=self.utts[rows],
            num_samples=self.num_samples[rows],
            sample_rate=self.sample_rate[rows],
            speech_len=self.speech_len[rows],
            rejected_len=self.rejected_len[rows],
            text=self.text.select(rows),
            instruct=None if self.instruct is None else self.instruct.select(rows),
            voiced_frames=None if self.voiced_frames is None else self.voiced_frames[rows],
            equal_pairs=None if self.equal_pairs is None else self.equal_pairs[rows],
        )

    def check_text_ids(self, vocab_size: int) -> None:
        """Raises CosyFlowError, naming the utterance, when a text token is not below `vocab_size`."""
        for table, what in ((self.text, "text"), (self.instruct, "instruct")):
            if table is None or not len(table.values) or table.values.max() < vocab_size:
                continue
            for row in range(len(self)):
                tokens = table[row]
                if len(tokens) and tokens.max() >= vocab_size:
                    raise CosyFlowError(
                        f"{self.shards[self.shard[row]]}: {what} of {self.utts[row]} has token {tokens.max()},"
                        f" the model knows ids below {vocab_size}; the tokenizer and the model do not belong together"
                    )
