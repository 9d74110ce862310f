"""Batches of chosen and rejected speech of the same texts, with what the reference model says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from cosyflow.config.llm import LMConfig
from cosyflow.config.training import TrainConf
from cosyflow.dataset.reader import Utterance
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.models.llm.batch import PackedBatch
from cosyflow.training.language_data import Collate, LanguageModelData
from cosyflow.training.planned_data import VALIDATION_EPOCH, LoaderSettings
from cosyflow.training.ranks import Ranks
from cosyflow.training.reference import Reference, ReferenceTable, reference_tables

__all__ = ["CollatePairs", "PreferenceData", "Reference"]


@dataclass(frozen=True)
class CollatePairs:
    """Makes a batch of pairs, with their log-probabilities under the reference in the drawn layouts."""

    pairs: Collate
    table: ReferenceTable

    def __call__(self, utterances: Sequence[Utterance]) -> PackedBatch | None:
        batch = self.pairs(utterances)
        if batch is None:
            return None
        values = self.table.look_up(batch.utterances, self.pairs.draw(batch.utterances))
        return replace(batch, reference=torch.from_numpy(values))


class PreferenceData(LanguageModelData):
    """One rank's share of a training and a validation set of pairs (see cosyflow.training.objective.TrainingData).

    A pair takes the positions of both sequences of the token budget.

    Args:
        train, validation: filtered indexes, equal on every rank, of utterances that have rejected speech.
        reference: is measured at once where that has not been done yet.
        The others are those of LanguageModelData.
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
        reference: Reference,
    ) -> None:
        super().__init__(train, validation, config, conf, use_spk_embedding, ranks, loader, rejected=True)
        layouts = (False,) if config.layout.mix_ratio is None else (False, True)
        collates = [Collate(config, partial(_all, interleaved), use_spk_embedding, None) for interleaved in layouts]
        readers = (self._train, self._validation)
        self._table, self._validation_table = reference_tables(
            reference, readers, collates, config, self.batching, ranks, loader
        )

    def collate(self, seed: int, epoch: int) -> Callable[[Sequence[Utterance]], PackedBatch | None]:
        table = self._validation_table if epoch == VALIDATION_EPOCH else self._table
        return CollatePairs(self.plain_collate(seed, epoch), table)

    def fingerprint(self, epoch: int) -> str:
        """Also changes with the reference."""
        return hashlib.sha256(f"{super().fingerprint(epoch)} {self._table.key}".encode()).hexdigest()


def _all(interleaved: bool, utterances: Sequence[str]) -> np.ndarray:
    return np.full(len(utterances), interleaved)
