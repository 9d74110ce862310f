"""What a corpus in shards is like: lengths of audio, speech and text, and who speaks. Audio is not read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from cosyflow.dataset.index import audio_lengths, speech_lengths
from cosyflow.dataset.shard import open_shard, read_columns, read_list
from cosyflow.dataset.utterances import ABSENT


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of the utterances of some shards; the arrays have one entry for each."""

    shards: int
    """How many were read."""
    of_shards: int
    seconds: np.ndarray
    """float64."""
    characters: np.ndarray
    """int64, of the text."""
    speech_tokens: np.ndarray
    """int64; ABSENT where a shard has none."""
    speakers: Counter[str]
    """Utterances by speaker."""

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def tokens_a_second(self) -> np.ndarray:
        """float64 [utterances that have tokens]."""
        has = (self.speech_tokens != ABSENT) & (self.seconds > 0)
        return np.asarray(self.speech_tokens[has] / self.seconds[has])


def gather_statistics(data_list: str, at_most: int) -> Statistics:
    """Looks at the shards of a `data.list`, of a long one at `at_most` of them, evenly chosen.

    Raises:
        CosyFlowError: the list is absent or empty, or a shard is absent, damaged or lacks a column.
    """
    shards = read_list(data_list)
    count = min(at_most, len(shards))
    chosen = [shards[place * len(shards) // count] for place in range(count)]
    seconds, characters, tokens = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    speakers: Counter[str] = Counter()
    for shard in chosen:
        with open_shard(shard) as file:
            columns = read_columns(shard, file, ["utt", "text", "spk"])
            utts, texts, names = (columns[name].to_pylist() for name in ("utt", "text", "spk"))
            num_samples, sample_rate = audio_lengths(shard, file, utts)
            seconds.append(num_samples / sample_rate)
            characters.append(np.array([len(text or "") for text in texts], np.int64))
            tokens.append(speech_lengths(shard, file, len(utts)).astype(np.int64))
            speakers.update("" if name is None else name for name in names)
    every = (np.concatenate(seconds), np.concatenate(characters), np.concatenate(tokens))
    return Statistics(count, len(shards), *every, speakers)
