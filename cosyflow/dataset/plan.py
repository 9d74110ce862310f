"""What every rank trains on in every step of an epoch, decided from metadata before the first byte of data is read.

The order is a walk over windows of shards: shards are shuffled, and utterances are shuffled within a window of them, so
that a reader needs only a window's columns in memory. Groups that fit a batch are cut from that walk and dealt out, one
to each rank a step. All ranks have the same number of steps, and every utterance comes exactly once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.errors import CosyFlowError

WINDOW_SHARDS = 16


class Batching(Protocol):
    """Cuts an order of utterances into groups, each of which is one rank's batch in one step.

    Any part of a group must be a valid group too: groups are split to give every rank work.
    """

    def group(self, index: UtteranceIndex, order: np.ndarray) -> list[np.ndarray]:
        """Groups of rows of `index` that together hold each row of `order` (int64 [n]) once."""
        ...


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """The groups of an epoch: step s of rank r is group `s * world_size + r`."""

    epoch: int
    world_size: int
    rows: np.ndarray
    """Rows of the index, all groups one after the other: int64 [utterances]."""
    offsets: np.ndarray
    """Where each group starts in `rows`: int64 [groups + 1]."""

    @property
    def num_steps(self) -> int:
        return (len(self.offsets) - 1) // self.world_size

    def batch(self, step: int, rank: int) -> np.ndarray:
        """Rows of one rank's batch: int64 [n]. n is 0 only when there are fewer utterances than ranks."""
        if not (0 <= step < self.num_steps and 0 <= rank < self.world_size):
            raise IndexError(f"step {step} of {self.num_steps}, rank {rank} of {self.world_size}")
        group = step * self.world_size + rank
        return self.rows[self.offsets[group] : self.offsets[group + 1]]

    def batches(self, rank: int, start_step: int = 0) -> Iterator[np.ndarray]:
        """One rank's batches from a step on, as a resumed run needs them."""
        for step in range(start_step, self.num_steps):
            yield self.batch(step, rank)


def plan_epoch(
    index: UtteranceIndex,
    seed: int,
    epoch: int,
    world_size: int,
    batching: Batching,
    shuffle: bool = True,
    window_shards: int = WINDOW_SHARDS,
) -> EpochPlan:
    """Plans an epoch; equal arguments give an equal plan on every rank and after every restart.

    Args:
        index: the utterances to train on, already filtered.
        seed, epoch: what the order depends on.
        world_size: number of ranks.
        batching: how utterances become batches.
        shuffle: False keeps the order of the index, as cross validation wants it.
        window_shards: number of shards whose utterances are mixed; a reader should hold twice as many.
    Raises:
        CosyFlowError: the index is empty, or an utterance fits no batch.
    """
    if not len(index):
        raise CosyFlowError("there is no utterance to plan an epoch of")
    order = _walk(index, np.random.default_rng([seed, epoch]), window_shards) if shuffle else np.arange(len(index))
    groups = _share_out(batching.group(index, order), world_size)
    offsets = np.zeros(len(groups) + 1, np.int64)
    np.cumsum([len(group) for group in groups], out=offsets[1:])
    return EpochPlan(epoch, world_size, np.concatenate(groups).astype(np.int64), offsets)


def _walk(index: UtteranceIndex, rng: np.random.Generator, window_shards: int) -> np.ndarray:
    """All rows of the index, shuffled within windows of shuffled shards."""
    place = rng.permutation(len(index.shards))  # of each shard in the epoch
    window = place[index.shard] // window_shards
    shuffled = rng.permutation(len(index))
    return shuffled[np.argsort(window[shuffled], kind="stable")]


def _share_out(groups: Sequence[np.ndarray], world_size: int) -> list[np.ndarray]:
    """Splits groups near the end of the epoch until the last step has one for every rank."""
    whole_steps = len(groups) // world_size * world_size
    body, tail = list(groups[:whole_steps]), list(groups[whole_steps:])
    while len(tail) % world_size:
        largest = max(range(len(tail)), key=lambda place: len(tail[place]))
        group = tail[largest]
        if len(group) > 1:
            tail[largest : largest + 1] = [group[: len(group) // 2], group[len(group) // 2 :]]
        elif body:
            body, tail = body[:-world_size], body[-world_size:] + tail
        else:
            tail.append(np.zeros(0, np.int64))
    return body + tail
