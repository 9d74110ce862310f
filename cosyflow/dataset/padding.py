"""Batches of utterances side by side, each padded to the longest; and batches of a fixed number of utterances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.errors import CosyFlowError

SORTED_TOGETHER = 500


@dataclass(frozen=True)
class FrameBudget:
    """Groups utterances of similar length, so that no batch has more than `frames` mel frames with its padding."""

    frames: int
    length: Callable[[UtteranceIndex], np.ndarray]
    """Mel frames of each utterance: int [utterances]."""

    def group(self, index: UtteranceIndex, order: np.ndarray) -> list[np.ndarray]:
        """Sorts stretches of the order by length and cuts them; the groups of a stretch come in a mixed order.

        Raises:
            CosyFlowError: an utterance alone is longer than the budget.
        """
        length = np.asarray(self.length(index))
        longest = int(length.argmax())
        if length[longest] > self.frames:
            raise CosyFlowError(
                f"utterance {index.utts[longest]} has {length[longest]} mel frames and a batch only {self.frames};"
                " raise frames_per_step or filter long utterances (filter.max_length)"
            )
        groups: list[np.ndarray] = []
        for start in range(0, len(order), SORTED_TOGETHER):
            stretch = order[start : start + SORTED_TOGETHER]
            ascending = stretch[np.argsort(length[stretch], kind="stable")]
            cut = _cut(ascending, length[ascending], self.frames)
            rng = np.random.default_rng(stretch)  # mixes the same stretch in the same way
            groups += [cut[place] for place in rng.permutation(len(cut))]
        return groups


def _cut(rows: np.ndarray, lengths: np.ndarray, frames: int) -> list[np.ndarray]:
    """Cuts rows of ascending lengths so that the last length of a group times its size is at most `frames`."""
    starts = [0]
    for place, length in enumerate(lengths.tolist()):
        if length * (place + 1 - starts[-1]) > frames:
            starts.append(place)
    return np.split(rows, starts[1:])


@dataclass(frozen=True)
class FixedCount:
    """Groups of `utterances` each, in the given order; the last one may have fewer."""

    utterances: int

    def group(self, index: UtteranceIndex, order: np.ndarray) -> list[np.ndarray]:
        return [order[start : start + self.utterances] for start in range(0, len(order), self.utterances)]
