"""Banks of triangular filters that sum a spectrum into bands of equal width on a mel scale."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from cosyflow.audio.caching import ordinary_tensors

# Slaney's Auditory Toolbox (1998): linear below 1 kHz, then 27 bands for each factor of 6.4
SLANEY_HZ_PER_MEL = 200 / 3
SLANEY_BREAK_HZ = 1000.0
SLANEY_BREAK_MEL = SLANEY_BREAK_HZ / SLANEY_HZ_PER_MEL
SLANEY_LOG_STEP = math.log(6.4) / 27

# O'Shaughnessy, Speech Communication (1987), as the HTK book and Kaldi write it
HTK_FACTOR = 1127.0
HTK_BREAK_HZ = 700.0


@lru_cache(maxsize=64)
@ordinary_tensors
def slaney_filters(
    sample_rate: int, n_fft: int, num_mels: int, fmin: float, fmax: float | None, device: torch.device
) -> torch.Tensor:
    """Filters of unit area on Slaney's mel scale, as librosa makes them by default.

    Args:
        sample_rate: of the waveform, Hz.
        n_fft: length of the Fourier transform, samples.
        fmin, fmax: lowest and highest frequency, Hz; None is half the sample rate.
    Returns:
        float32 [num_mels, n_fft // 2 + 1].
    """
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    limits = torch.tensor([fmin, sample_rate / 2 if fmax is None else fmax], dtype=torch.float64)
    low, high = _hz_to_slaney(limits).tolist()
    corners = _slaney_to_hz(torch.linspace(low, high, num_mels + 2, dtype=torch.float64))  # [num_mels + 2]
    area = (corners[2:] - corners[:-2]) / 2
    return (_triangles(bins, corners) / area[:, None]).float().to(device)


@lru_cache(maxsize=64)
@ordinary_tensors
def kaldi_filters(sample_rate: int, n_fft: int, num_mels: int, fmin: float, device: torch.device) -> torch.Tensor:
    """Filters of unit height, triangular on the mel axis, from `fmin` Hz to half the sample rate, as Kaldi makes them.

    All in single precision, as Kaldi: in the narrow bands of low frequencies the rounding is seen in the features.
    Returns float32 [num_mels, n_fft // 2 + 1]; the highest bin has no weight.
    """
    bins = _hz_to_htk(sample_rate / n_fft * torch.arange(n_fft // 2 + 1))
    low, high = (HTK_FACTOR * math.log(1.0 + hz / HTK_BREAK_HZ) for hz in (fmin, sample_rate / 2))
    corners = low + (high - low) / (num_mels + 1) * torch.arange(num_mels + 2)
    filters = _triangles(bins, corners)
    filters[:, -1] = 0.0
    return filters.to(device)


def _triangles(positions: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """Triangle i rises from corner i to 1 at corner i+1 and falls to 0 at corner i+2: [num_mels, positions]."""
    left, peak, right = (corners[start : len(corners) - 2 + start, None] for start in range(3))
    rising = (positions - left) / (peak - left)
    falling = (right - positions) / (right - peak)
    return torch.minimum(rising, falling).clamp(min=0.0)


def _hz_to_slaney(hz: torch.Tensor) -> torch.Tensor:
    above = SLANEY_BREAK_MEL + torch.log(hz.clamp(min=SLANEY_BREAK_HZ) / SLANEY_BREAK_HZ) / SLANEY_LOG_STEP
    return torch.where(hz < SLANEY_BREAK_HZ, hz / SLANEY_HZ_PER_MEL, above)


def _slaney_to_hz(mel: torch.Tensor) -> torch.Tensor:
    above = SLANEY_BREAK_HZ * torch.exp((mel - SLANEY_BREAK_MEL) * SLANEY_LOG_STEP)
    return torch.where(mel < SLANEY_BREAK_MEL, mel * SLANEY_HZ_PER_MEL, above)


def _hz_to_htk(hz: torch.Tensor) -> torch.Tensor:
    return HTK_FACTOR * torch.log(1.0 + hz / HTK_BREAK_HZ)
