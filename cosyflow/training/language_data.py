"""Batches of utterances for a language model: which ones in which order, and how they are laid out as sequences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from cosyflow.config.llm import LMConfig
from cosyflow.config.training import TrainConf
from cosyflow.dataset.batching import TokenBudget
from cosyflow.dataset.reader import Utterance, UtteranceReader
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.models.llm.batch import Example, PackedBatch
from cosyflow.models.llm.layout import build_batch, draw_bistream, sequence_length
from cosyflow.training.planned_data import LoaderSettings, PlannedData
from cosyflow.training.ranks import Ranks

LayoutDraw = Callable[[Sequence[str]], np.ndarray]
"""Decides of utterances, by their names, which ones to interleave: bool [utterances]. It can be pickled."""


@dataclass(frozen=True)
class Collate:
    """Makes a packed batch of the utterances of one rank's batch; of none, None. It can be pickled."""

    config: LMConfig
    draw: LayoutDraw
    use_spk_embedding: bool
    budget: int | None

    def __call__(self, utterances: Sequence[Utterance]) -> PackedBatch | None:
        if not utterances:
            return None
        examples = [self._example(utterance) for utterance in utterances]
        interleaved = self.draw([example.utterance for example in examples])
        return build_batch(examples, interleaved, self.config, self.budget)

    def _example(self, utterance: Utterance) -> Example:
        layout = self.config.layout
        embedding = utterance.spk_embedding if self.use_spk_embedding else utterance.utt_embedding
        return Example(
            utterance=utterance.utt,
            text=utterance.text_token,
            speech=utterance.speech_token,
            instruct=utterance.instruct_token if layout.takes_instruct else None,
            embedding=None if layout.speaker_dim is None else embedding,
            rejected=utterance.reject_speech_token,
        )


class LanguageModelData(PlannedData[PackedBatch]):
    """One rank's share of a training and a validation set (see cosyflow.training.objective.TrainingData).

    Args:
        train, validation: filtered indexes, equal on every rank.
        config: settings of the model.
        conf: `tokens_per_step`, `accum_grad`, `seed` and `compile`, which asks for fixed shapes.
        use_spk_embedding: take the speaker's mean embedding instead of the utterance's own.
        ranks: this process among the others.
        loader: how batches are read.
        rejected: also read the rejected speech, so that every batch holds pairs.
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
        rejected: bool = False,
    ) -> None:
        self.config = config
        self.rejected = rejected
        self.use_spk_embedding = use_spk_embedding
        batching = TokenBudget(conf.tokens_per_step, self._sequence_lengths)
        super().__init__(self._reader(train), self._reader(validation), batching, conf, ranks, loader)

    def collate(self, seed: int, epoch: int) -> Callable[[Sequence[Utterance]], PackedBatch | None]:
        return self.plain_collate(seed, epoch)

    def plain_collate(self, seed: int, epoch: int) -> Collate:
        """Makes batches of nothing but the utterances, in the layouts of an epoch."""
        budget = self.conf.tokens_per_step if self.conf.compile else None
        return Collate(self.config, partial(draw_bistream, seed=seed, epoch=epoch), self.use_spk_embedding, budget)

    def _reader(self, index: UtteranceIndex) -> UtteranceReader:
        layout = self.config.layout
        return UtteranceReader(
            index, embeddings=layout.speaker_dim is not None, rejected=self.rejected, speech_ids=layout.speech_ids
        )

    def _sequence_lengths(self, index: UtteranceIndex) -> np.ndarray:
        """Positions that each utterance takes, with rejected speech those of both sequences: int64 [utterances]."""
        instruct = index.instruct_len if self.config.layout.takes_instruct else np.zeros(len(index), np.int32)
        text = index.text_len.astype(np.int64)
        length = sequence_length(text, index.speech_len, instruct, self.config)
        return length + sequence_length(text, index.rejected_len, instruct, self.config) if self.rejected else length
