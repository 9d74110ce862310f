"""Recorded speech as the acoustic models are trained on it."""

from __future__ import annotations

import torch

from cosyflow.audio.opener import open_audio
from cosyflow.audio.resample import resample


def load_speech(locator: str | bytes, sample_rate: int, name: str | None = None) -> torch.Tensor:
    """The mean of the channels at `sample_rate` (Hz), scaled down where a sample exceeds 1: float32 [samples].

    Raises:
        AudioError: see `open_audio`; `name` is what it calls the audio.
    """
    waveform, source_rate = open_audio(locator, name)
    mono = resample(waveform.mean(dim=0), source_rate, sample_rate)
    return mono / mono.abs().max().clamp(min=1.0)
