"""Recorded speech as the models are trained on it, at the sample rate that they want."""

from __future__ import annotations

from functools import lru_cache

import torch
import torchaudio

from cosyflow.audio.features import ordinary_tensors
from cosyflow.audio.opener import open_audio


def load_speech(locator: str | bytes, sample_rate: int, name: str | None = None) -> torch.Tensor:
    """The mean of the channels at `sample_rate` (Hz), scaled down where a sample exceeds 1: float32 [samples].

    Raises:
        AudioError: see `open_audio`; `name` is what it calls the audio.
    """
    waveform, source_rate = open_audio(locator, name)
    mono = resample(waveform.mean(dim=0), source_rate, sample_rate)
    return mono / mono.abs().max().clamp(min=1.0)


def resample(waveform: torch.Tensor, source_rate: int, target_rate: int) -> torch.Tensor:
    """Resamples a waveform of shape [..., samples] from `source_rate` to `target_rate` (Hz).

    A Hann-windowed sinc of 6 zero crossings with a roll-off of 0.99: torchaudio's default, and the official code's.
    Returns [..., ceil(samples * target_rate / source_rate)]; the very same tensor when the rates are equal.
    """
    if source_rate == target_rate:
        return waveform
    resampled: torch.Tensor = _resampler(source_rate, target_rate, waveform.device)(waveform)
    return resampled


@lru_cache(maxsize=32)
@ordinary_tensors
def _resampler(source_rate: int, target_rate: int, device: torch.device) -> torch.nn.Module:
    resampler: torch.nn.Module = torchaudio.transforms.Resample(source_rate, target_rate).to(device)
    return resampler
