"""How utterances become batches: padded side by side to the longest, packed end to end, or a fixed number of them."""

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


OPEN_PACKS = 16


@dataclass(frozen=True)
class TokenBudget:
    """Packs utterances so that no batch has more than `tokens` tokens."""

    tokens: int
    length: Callable[[UtteranceIndex], np.ndarray]
    """Tokens that each utterance takes in a batch: int [utterances], from `text_len`, `speech_len` and the like."""

    def group(self, index: UtteranceIndex, order: np.ndarray) -> list[np.ndarray]:
        """Packs in the given order, each utterance into the fullest of the open packs that has room for it.

        Raises:
            CosyFlowError: an utterance alone is longer than the budget.
        """
        length = np.asarray(self.length(index))
        longest = int(length.argmax()) if len(length) else 0
        if len(length) and length[longest] > self.tokens:
            raise CosyFlowError(
                f"utterance {index.utts[longest]} takes {length[longest]} tokens and a batch only {self.tokens};"
                " raise the token budget or filter long utterances (filter.max_length, filter.token_max_length)"
            )
        return [np.array(pack, np.int64) for pack in pack_in_order(order.tolist(), length[order].tolist(), self.tokens)]


def pack_in_order(items: list[int], sizes: list[int], capacity: int, open_packs: int = OPEN_PACKS) -> list[list[int]]:
    """Best-fit packing with few packs open at a time, so that a pack's items stand close together in the order.

    When nothing fits, the oldest open pack is closed. Packs come out in the order in which they are closed.
    """
    packs: list[list[int]] = []
    opened: list[list[int]] = []
    rooms: list[int] = []
    for item, size in zip(items, sizes, strict=True):
        best = -1
        for place, room in enumerate(rooms):
            if room >= size and (best < 0 or room < rooms[best]):
                best = place
        if best < 0:
            if len(opened) == open_packs:
                packs.append(opened.pop(0))
                rooms.pop(0)
            opened.append([])
            rooms.append(capacity)
            best = len(opened) - 1
        opened[best].append(item)
        rooms[best] -= size
    return packs + opened
