"""What is trained on in every update of an epoch, decided from metadata before the first byte of data is read.

The order is a walk over windows of shards: shards are shuffled, and utterances are shuffled within a window of them, so
that a reader needs only a window's columns in memory. Groups that fit a batch are cut from that walk for the whole job,
and an update takes the next few of them, however many ranks share its groups out among themselves. So every utterance
comes exactly once, and the number of ranks changes no update.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.errors import CosyFlowError

WINDOW_SHARDS = 16


class Batching(Protocol):
    """Cuts an order of utterances into groups, each of which is computed at once by one rank."""

    def group(self, index: UtteranceIndex, order: np.ndarray) -> list[np.ndarray]:
        """Groups of rows of `index` that together hold each row of `order` (int64 [n]) once."""
        ...


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """The groups of an epoch, in the order in which updates take them."""

    epoch: int
    rows: np.ndarray
    """Rows of the index, all groups one after the other: int64 [utterances]."""
    offsets: np.ndarray
    """Where each group starts in `rows`: int64 [groups + 1]."""

    @property
    def num_groups(self) -> int:
        return len(self.offsets) - 1

    def group(self, number: int) -> np.ndarray:
        """Rows of a group: int64 [n], n at least 1."""
        if not 0 <= number < self.num_groups:
            raise IndexError(f"group {number} of {self.num_groups}")
        return self.rows[self.offsets[number] : self.offsets[number + 1]]

    def share(self, rank: int = 0, world_size: int = 1, per_update: int | None = None, start: int = 0) -> Share:
        """One rank's batches.

        Args:
            per_update: groups of an update; None for as many as there are, where nothing is learnt.
            start: number of the group to begin with, the first of an update, as a resumed run needs it.
        """
        return Share(self, rank, world_size, per_update or max(1, self.num_groups), start)


@dataclass(frozen=True, eq=False)
class Share:
    """One rank's batches of an epoch, in their order: rows of the index, int64 [n].

    Rank r has the groups r, r + world_size, ... of each update. Where an update has none left for it the batch is empty
    (n is 0), so that all ranks have equally many.
    """

    plan: EpochPlan
    rank: int
    world_size: int
    per_update: int
    start: int

    def __iter__(self) -> Iterator[np.ndarray]:
        for first, end in self._updates():
            for number in range(first + self.rank, first + self.rank + (end - first), self.world_size):
                yield self.plan.group(number) if number < end else np.zeros(0, np.int64)

    def __len__(self) -> int:
        return sum(batches_each(end - first, self.world_size) for first, end in self._updates())

    def _updates(self) -> Iterator[tuple[int, int]]:
        """The first group of each update, and the one after its last."""
        for first in range(self.start, self.plan.num_groups, self.per_update):
            yield first, min(first + self.per_update, self.plan.num_groups)


def batches_each(groups: int, world_size: int) -> int:
    """How many batches every rank computes, or stands by for, when they share out a number of groups."""
    return -(-groups // world_size)


def plan_epoch(
    index: UtteranceIndex,
    seed: int,
    epoch: int,
    batching: Batching,
    shuffle: bool = True,
    window_shards: int = WINDOW_SHARDS,
) -> EpochPlan:
    """Plans an epoch; equal arguments give an equal plan on every rank, of any number, and after every restart.

    Args:
        index: the utterances to train on, already filtered.
        seed, epoch: what the order depends on.
        batching: how utterances become batches.
        shuffle: False keeps the order of the index, as cross validation wants it.
        window_shards: number of shards whose utterances are mixed; a reader should hold twice as many.
    Raises:
        CosyFlowError: the index is empty, or an utterance fits no batch.
    """
    if not len(index):
        raise CosyFlowError("there is no utterance to plan an epoch of")
    order = _walk(index, np.random.default_rng([seed, epoch]), window_shards) if shuffle else np.arange(len(index))
    groups = batching.group(index, order)
    offsets = np.zeros(len(groups) + 1, np.int64)
    np.cumsum([len(group) for group in groups], out=offsets[1:])
    return EpochPlan(epoch, np.concatenate(groups).astype(np.int64), offsets)


def _walk(index: UtteranceIndex, rng: np.random.Generator, window_shards: int) -> np.ndarray:
    """All rows of the index, shuffled within windows of shuffled shards."""
    place = rng.permutation(len(index.shards))  # of each shard in the epoch
    window = place[index.shard] // window_shards
    shuffled = rng.permutation(len(index))
    return shuffled[np.argsort(window[shuffled], kind="stable")]
