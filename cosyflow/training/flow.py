"""Flow matching: batches of speech tokens and mel spectrograms with all their random numbers, and the objective."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Self, cast

import numpy as np
import torch

from cosyflow.audio.features import MelSettings, mel_spectrogram
from cosyflow.config.flow import FlowConfig
from cosyflow.config.mel import MelConf
from cosyflow.config.recipe import Recipe
from cosyflow.config.training import TrainConf
from cosyflow.dataset.alignment import Alignment
from cosyflow.dataset.batching import FrameBudget
from cosyflow.dataset.speech_reader import WINDOW_SHARDS, SpeechReader, SpeechUtterance
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.errors import AudioError
from cosyflow.models.flow.batch import FlowBatch, FlowDraws, FlowExample, build_flow_batch, draw
from cosyflow.training.objective import Batch, Objective, Outcome
from cosyflow.training.planned_data import VALIDATION_EPOCH, LoaderSettings, PlannedData
from cosyflow.training.ranks import Ranks


def mel_settings(mel: MelConf, sample_rate: int) -> MelSettings:
    """The mel spectrogram of a recipe."""
    return MelSettings(sample_rate, mel.n_fft, mel.hop_size, mel.win_size, mel.num_mels, mel.fmin, mel.fmax)


@dataclass(frozen=True)
class FlowTask:
    """A padded batch, and what is drawn for it (see cosyflow.training.objective.Batch)."""

    batch: FlowBatch
    draws: FlowDraws

    @property
    def utterances(self) -> list[str]:
        return self.batch.utterances

    @property
    def num_tokens(self) -> int:
        """Mel frames that are not padding."""
        return self.batch.num_frames

    def to(self, device: torch.device, non_blocking: bool = False) -> Self:
        return replace(self, batch=self.batch.to(device, non_blocking), draws=self.draws.to(device, non_blocking))

    def pin_memory(self) -> Self:
        return replace(self, batch=self.batch.pin_memory())


@dataclass(frozen=True)
class FlowCollate:
    """Makes a task of the utterances of one rank's batch; of none, None. It can be pickled.

    For validation the attention sees the whole utterance and the other draws are the same in every epoch and run.
    """

    config: FlowConfig
    mel: MelSettings
    use_spk_embedding: bool
    seed: int
    epoch: int

    def __call__(self, utterances: Sequence[SpeechUtterance]) -> FlowTask | None:
        if not utterances:
            return None
        batch = build_flow_batch([self._example(utterance) for utterance in utterances], self.config)
        whole = self.epoch == VALIDATION_EPOCH
        config = replace(self.config, streaming_rate=0.0) if whole else self.config
        return FlowTask(batch, draw(batch, config, self.seed * 1_000_003 + self.epoch))

    def _example(self, speech: SpeechUtterance) -> FlowExample:
        utterance = speech.utterance
        embedding = utterance.spk_embedding if self.use_spk_embedding else utterance.utt_embedding
        try:
            mel = mel_spectrogram(speech.waveform, self.mel)  # [mel channels, frames]
        except AudioError as error:
            raise AudioError(f"utterance {utterance.utt}: {error}") from error
        return FlowExample(utterance.utt, utterance.speech_token, mel.T.numpy(), cast(np.ndarray, embedding))


class FlowData(PlannedData[FlowTask]):
    """One rank's share of a training and a validation set (see cosyflow.training.objective.TrainingData).

    Args:
        train, validation: filtered indexes, equal on every rank.
        recipe: settings of the flow, its mel and its alignment.
        conf: `frames_per_step`, `accum_grad` and `seed`.
        ranks: this process among the others.
        loader: how batches are read.
    """

    def __init__(
        self,
        train: UtteranceIndex,
        validation: UtteranceIndex,
        recipe: Recipe,
        conf: TrainConf,
        ranks: Ranks,
        loader: LoaderSettings,
    ) -> None:
        self.config = recipe.flow
        self.mel = mel_settings(recipe.mel, recipe.sample_rate)
        self.use_spk_embedding = recipe.use_spk_embedding
        alignment = Alignment.of(recipe)

        def reader(index: UtteranceIndex) -> SpeechReader:
            return SpeechReader(index, alignment, speech_ids=recipe.flow.vocab_size)

        batching = FrameBudget(conf.frames_per_step, alignment.index_frames)
        super().__init__(reader(train), reader(validation), batching, conf, ranks, loader, WINDOW_SHARDS)

    def collate(self, seed: int, epoch: int) -> FlowCollate:
        return FlowCollate(self.config, self.mel, self.use_spk_embedding, seed, epoch)


class FlowMatchingObjective(Objective):
    """Squared error of the estimated velocity, mean over mel channels; its targets are mel frames.

    Args:
        model: what `build_flow` makes.
        compute_dtype: bfloat16 computes under autocast, the loss always in float32.
    """

    def __init__(self, model: torch.nn.Module, compute_dtype: str = "float32") -> None:
        super().__init__()
        self.model = model
        self.compute_dtype = compute_dtype

    def compute(self, batch: Batch) -> Outcome:
        task = cast(FlowTask, batch)
        device = task.batch.mel.device.type
        reduced = torch.autocast(device, torch.bfloat16) if self.compute_dtype == "bfloat16" else nullcontext()
        with reduced:
            output = self.model(task.batch, task.draws)
        return Outcome(output.loss_sum, task.batch.num_frames)
