"""Batches for the vocoder: a part of each utterance, the same part of waveform, mel and f0."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch

from cosyflow.audio.features import MelSettings, mel_spectrogram
from cosyflow.config.recipe import Recipe
from cosyflow.config.training import GanTrainConf
from cosyflow.dataset.alignment import Alignment
from cosyflow.dataset.batching import FixedCount
from cosyflow.dataset.filter import FilterResult
from cosyflow.dataset.speech_reader import WINDOW_SHARDS, SpeechReader, SpeechUtterance
from cosyflow.dataset.utterances import ABSENT, UtteranceIndex
from cosyflow.errors import CosyFlowError
from cosyflow.training.flow import mel_settings
from cosyflow.training.planned_data import LoaderSettings, PlannedData
from cosyflow.training.ranks import Ranks


@dataclass(frozen=True)
class WindowBatch:
    """B windows of F mel frames, one of each utterance (see cosyflow.training.objective.Batch)."""

    utterances: list[str]
    waveform: torch.Tensor
    """float32 [B, F * hop_size]"""
    mel: torch.Tensor
    """float32 [B, mel channels, F]"""
    f0: torch.Tensor
    """float32 [B, F] in Hz, 0 without voice."""

    @property
    def num_tokens(self) -> int:
        """Mel frames."""
        return self.f0.numel()

    def to(self, device: torch.device, non_blocking: bool = False) -> Self:
        tensors = {
            name: getattr(self, name).to(device, non_blocking=non_blocking) for name in ("waveform", "mel", "f0")
        }
        return replace(self, **tensors)

    def pin_memory(self) -> Self:
        return replace(self, **{name: getattr(self, name).pin_memory() for name in ("waveform", "mel", "f0")})


def window_start(utterance: str, seed: int, epoch: int, frames: int, window: int) -> int:
    """First frame of the window of an utterance in an epoch: any of those that leave room for it, equally likely."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{utterance}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % (frames - window + 1)


@dataclass(frozen=True)
class WindowCollate:
    """Makes a batch of the utterances of one rank's batch; of none, None. It can be pickled.

    The mel is that of the window's waveform alone, so that generated speech can be held against it to its ends.
    """

    mel: MelSettings
    window: int
    seed: int
    epoch: int

    def __call__(self, utterances: Sequence[SpeechUtterance]) -> WindowBatch | None:
        if not utterances:
            return None
        waveforms, pitches = zip(*map(self._cut, utterances), strict=True)
        waveform = torch.stack(waveforms)
        return WindowBatch(
            utterances=[speech.utterance.utt for speech in utterances],
            waveform=waveform,
            mel=mel_spectrogram(waveform, self.mel),
            f0=torch.stack(pitches),
        )

    def _cut(self, speech: SpeechUtterance) -> tuple[torch.Tensor, torch.Tensor]:
        if speech.f0 is None:
            raise ValueError("the reader was not asked for f0")
        start = window_start(speech.utterance.utt, self.seed, self.epoch, len(speech.f0), self.window)
        end, hop = start + self.window, self.mel.hop_size
        return speech.waveform[start * hop : end * hop], torch.from_numpy(speech.f0[start:end].copy())


def usable_windows(index: UtteranceIndex, alignment: Alignment, window: int) -> FilterResult:
    """The utterances that a vocoder can be trained on.

    Raises:
        CosyFlowError: a shard has no f0, or no utterance is left; names shard or utterances.
    """
    if index.voiced_frames is None or (index.voiced_frames == ABSENT).any():
        place = 0 if index.voiced_frames is None else int(np.flatnonzero(index.voiced_frames == ABSENT)[0])
        shard = index.shards[index.shard[place]]
        from cosyflow.dataset.shard import F0_COLUMN

        raise CosyFlowError(f"{shard}: has no column {F0_COLUMN}; make it again by the parquet stage with --f0 harvest")
    breaches = {
        f"less than the {window} mel frames of a training window": alignment.index_frames(index) < window,
        "no voiced frame": index.voiced_frames == 0,
    }
    kept = np.ones(len(index), bool)
    dropped: dict[str, list[str]] = {}
    for reason, breach in breaches.items():
        if (kept & breach).any():
            dropped[reason] = index.utts[kept & breach].tolist()
        kept &= ~breach
    result = FilterResult(index.select(kept), dropped)
    if not kept.any():
        raise CosyFlowError(f"no utterance is left to train on: {result.describe()}; lower window_frames or add data")
    return result


class VocoderData(PlannedData[WindowBatch]):
    """One rank's share of a training and a validation set (see cosyflow.training.objective.TrainingData).

    Args:
        train, validation: what `usable_windows` left, equal on every rank.
        recipe: the mel and the alignment.
        conf: `frames_per_step`, `window_frames`, `accum_grad` and `seed`.
        ranks: this process among the others.
        loader: how batches are read.
    """

    def __init__(
        self,
        train: UtteranceIndex,
        validation: UtteranceIndex,
        recipe: Recipe,
        conf: GanTrainConf,
        ranks: Ranks,
        loader: LoaderSettings,
    ) -> None:
        self.mel = mel_settings(recipe.mel, recipe.sample_rate)
        self.window = conf.window_frames

        def reader(index: UtteranceIndex) -> SpeechReader:
            return SpeechReader(index, Alignment.of(recipe), embeddings=False, f0=True)

        batching = FixedCount(conf.frames_per_step // conf.window_frames)
        super().__init__(reader(train), reader(validation), batching, conf, ranks, loader, WINDOW_SHARDS)

    def collate(self, seed: int, epoch: int) -> WindowCollate:
        return WindowCollate(self.mel, self.window, seed, epoch)
