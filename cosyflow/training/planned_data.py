"""Training data by plans of whole epochs (see cosyflow.dataset.plan), whatever the batches are made of."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np

from cosyflow.config.training import TrainConf
from cosyflow.dataset.loader import Reader, build_loader
from cosyflow.dataset.plan import WINDOW_SHARDS, Batching, EpochPlan, Share, plan_epoch
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.training.ranks import Ranks

VALIDATION_SEED, VALIDATION_EPOCH = 0, -1
"""What everything random about validation utterances is drawn from: the same in every epoch and in every run."""

B = TypeVar("B")


@dataclass(frozen=True)
class LoaderSettings:
    """How batches are read; none of it changes what is in them."""

    num_workers: int = 0
    prefetch: int | None = None
    pin_memory: bool = False


class PlannedData(ABC, Generic[B]):
    """One rank's share of a training and a validation set (see cosyflow.training.objective.TrainingData).

    Args:
        train, validation: readers of filtered indexes, which are equal on every rank.
        batching: which utterances make a batch.
        conf: `accum_grad` and `seed`.
        ranks: this process among the others.
        loader: how batches are read.
        window_shards: number of shards whose utterances are mixed.
    """

    def __init__(
        self,
        train: Reader[Any],
        validation: Reader[Any],
        batching: Batching,
        conf: TrainConf,
        ranks: Ranks,
        loader: LoaderSettings,
        window_shards: int = WINDOW_SHARDS,
    ) -> None:
        self.conf = conf
        self.ranks = ranks
        self.loader = loader
        self.batching = batching
        self.window_shards = window_shards
        self._train, self._validation = train, validation
        self._plan = lru_cache(maxsize=2)(self._make_plan)
        self._corpus = _digest(train.index)

    @abstractmethod
    def collate(self, seed: int, epoch: int) -> Callable[[Sequence[Any]], B | None]:
        """What makes a batch of the items of a reader, and None of no items. It must be picklable."""

    def num_batches(self, epoch: int) -> int:
        return self._plan(epoch).num_groups

    def batches(self, epoch: int, start: int) -> Iterator[B | None]:
        share = self._plan(epoch).share(self.ranks.rank, self.ranks.world_size, self.conf.accum_grad, start)
        return self._load(self._train, share, self.conf.seed, epoch)

    def validation_batches(self) -> Iterator[B | None]:
        index = self._validation.index
        plan = plan_epoch(index, VALIDATION_SEED, 0, self.batching, shuffle=False)
        share = plan.share(self.ranks.rank, self.ranks.world_size)
        return self._load(self._validation, share, VALIDATION_SEED, VALIDATION_EPOCH)

    def fingerprint(self, epoch: int) -> str:
        plan = self._plan(epoch)
        digest = hashlib.sha256(repr((self._corpus, self.conf.accum_grad, self.conf.seed)).encode())
        digest.update(plan.rows.tobytes())
        digest.update(plan.offsets.tobytes())
        return digest.hexdigest()

    def _make_plan(self, epoch: int) -> EpochPlan:
        return plan_epoch(self._train.index, self.conf.seed, epoch, self.batching, window_shards=self.window_shards)

    def _load(self, reader: Reader[Any], share: Share, seed: int, epoch: int) -> Iterator[B | None]:
        loader = build_loader(
            share,
            reader,
            self.collate(seed, epoch),
            num_workers=self.loader.num_workers,
            prefetch=self.loader.prefetch,
            pin_memory=self.loader.pin_memory,
        )
        return iter(loader)


def _digest(index: UtteranceIndex) -> str:
    """Identifies the utterances of an index and their lengths."""
    digest = hashlib.sha256("\0".join(index.utts).encode())
    for lengths in (index.text_len, index.speech_len, index.instruct_len):
        digest.update(np.ascontiguousarray(lengths).tobytes())
    return digest.hexdigest()
