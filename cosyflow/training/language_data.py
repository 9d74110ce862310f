"""Batches of utterances for a language model: which ones in which order, and how they are laid out as sequences."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cosyflow.config.llm import LMConfig
from cosyflow.config.training import TrainConf
from cosyflow.dataset.loader import build_loader
from cosyflow.dataset.packing import TokenBudget
from cosyflow.dataset.plan import EpochPlan, plan_epoch
from cosyflow.dataset.reader import Utterance, UtteranceReader
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.models.llm.batch import Example, PackedBatch
from cosyflow.models.llm.layout import build_batch, draw_bistream, sequence_length
from cosyflow.training.ranks import Ranks

VALIDATION_SEED, VALIDATION_EPOCH = 0, -1
"""What the layouts of validation utterances are drawn from: the same in every epoch and in every run."""


@dataclass(frozen=True)
class LoaderSettings:
    """How batches are read; none of it changes what is in them."""

    num_workers: int = 0
    prefetch: int | None = None
    pin_memory: bool = False


@dataclass(frozen=True)
class Collate:
    """Makes a packed batch of the utterances of one rank's batch; of none, None. It can be pickled."""

    config: LMConfig
    seed: int
    epoch: int
    use_spk_embedding: bool
    budget: int | None

    def __call__(self, utterances: Sequence[Utterance]) -> PackedBatch | None:
        if not utterances:
            return None
        examples = [self._example(utterance) for utterance in utterances]
        bistream = draw_bistream([example.utterance for example in examples], self.seed, self.epoch)
        return build_batch(examples, bistream, self.config, self.budget)

    def _example(self, utterance: Utterance) -> Example:
        layout = self.config.layout
        embedding = utterance.spk_embedding if self.use_spk_embedding else utterance.utt_embedding
        return Example(
            utterance=utterance.utt,
            text=utterance.text_token,
            speech=utterance.speech_token,
            instruct=utterance.instruct_token if layout.takes_instruct else None,
            embedding=None if layout.speaker_dim is None else embedding,
        )


class LanguageModelData:
    """One rank's share of a training and a validation set (see cosyflow.training.objective.TrainingData).

    Args:
        train, validation: filtered indexes, equal on every rank.
        config: settings of the model.
        conf: `tokens_per_step`, `accum_grad`, `seed` and `compile`, which asks for fixed shapes.
        use_spk_embedding: take the speaker's mean embedding instead of the utterance's own.
        ranks: this process among the others.
        loader: how batches are read.
    """

    def __init__(
        self,
        train: UtteranceIndex,
        validation: UtteranceIndex,
        config: LMConfig,
        conf: TrainConf,
        use_spk_embedding: bool,
        ranks: Ranks,
        loader: LoaderSettings,
    ) -> None:
        self.config = config
        self.conf = conf
        self.ranks = ranks
        self.use_spk_embedding = use_spk_embedding
        self.loader = loader
        self._train, self._validation = self._reader(train), self._reader(validation)
        self._plan = lru_cache(maxsize=2)(self._make_plan)
        self._corpus = _digest(train)

    def num_batches(self, epoch: int) -> int:
        return self._plan(epoch).num_steps

    def batches(self, epoch: int, start: int) -> Iterator[PackedBatch | None]:
        return self._load(self._train, self._plan(epoch), self.conf.seed, epoch, start)

    def validation_batches(self) -> Iterator[PackedBatch | None]:
        index = self._validation.index
        plan = plan_epoch(index, VALIDATION_SEED, 0, self.ranks.world_size, self._budget(), shuffle=False)
        return self._load(self._validation, plan, VALIDATION_SEED, VALIDATION_EPOCH, 0)

    def fingerprint(self, epoch: int) -> str:
        plan = self._plan(epoch)
        digest = hashlib.sha256(repr((self._corpus, plan.world_size, self.conf.accum_grad, self.conf.seed)).encode())
        digest.update(plan.rows.tobytes())
        digest.update(plan.offsets.tobytes())
        return digest.hexdigest()

    def _reader(self, index: UtteranceIndex) -> UtteranceReader:
        layout = self.config.layout
        return UtteranceReader(index, embeddings=layout.speaker_dim is not None, speech_ids=layout.speech_ids)

    def _make_plan(self, epoch: int) -> EpochPlan:
        return plan_epoch(self._train.index, self.conf.seed, epoch, self.ranks.world_size, self._budget())

    def _budget(self) -> TokenBudget:
        return TokenBudget(self.conf.tokens_per_step, self._sequence_lengths)

    def _sequence_lengths(self, index: UtteranceIndex) -> np.ndarray:
        """Positions that each utterance takes: int64 [utterances]."""
        instruct = index.instruct_len if self.config.layout.takes_instruct else np.zeros(len(index), np.int32)
        return sequence_length(index.text_len.astype(np.int64), index.speech_len, instruct, self.config)

    def _load(
        self, reader: UtteranceReader, plan: EpochPlan, seed: int, epoch: int, start: int
    ) -> Iterator[PackedBatch | None]:
        budget = self.conf.tokens_per_step if self.conf.compile else None
        collate = Collate(self.config, seed, epoch, self.use_spk_embedding, budget)
        loader = build_loader(
            plan,
            reader,
            collate,
            rank=self.ranks.rank,
            num_workers=self.loader.num_workers,
            prefetch=self.loader.prefetch,
            pin_memory=self.loader.pin_memory,
            start_step=start,
        )
        return iter(loader)


def _digest(index: UtteranceIndex) -> str:
    """Identifies the utterances of an index and their lengths."""
    digest = hashlib.sha256("\0".join(index.utts).encode())
    for lengths in (index.text_len, index.speech_len, index.instruct_len):
        digest.update(np.ascontiguousarray(lengths).tobytes())
    return digest.hexdigest()
