"""The fundamental frequency of speech, one value in Hz for each mel frame and 0 where there is no voice.

`fast_f0` needs nothing but torch; `harvest_f0` is what the released vocoders were trained with.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from cosyflow.audio.caching import ordinary_tensors
from cosyflow.audio.resample import resample
from cosyflow.errors import CosyFlowError

LOWEST, HIGHEST = 75.0, 450.0  # Hz, of a voice that fast_f0 finds
BAND = 70.0, 1000.0  # Hz, in which the first harmonics are: hum below and hiss above would blur the periods
FEWEST_VOICED = 5  # with fewer frames than that WORLD's other method is tried

# As Boersma (1993) names them, set by what agrees best with Harvest on recorded speech
DECIMATION = 2
PERIODS_IN_WINDOW = 3
CANDIDATES = 8
SILENCE_THRESHOLD = 0.05
VOICING_THRESHOLD = 0.4
OCTAVE_COST = 0.06
OCTAVE_JUMP_COST = 2.0
VOICING_COST = 0.4
SECONDS_OF_COSTS = 0.01


def harvest_f0(waveform: torch.Tensor, sample_rate: int, hop_size: int) -> np.ndarray:
    """WORLD's Harvest (Morise 2017), then DIO where it finds next to nothing, refined by StoneMask.

    Args:
        waveform: [samples].
        sample_rate: Hz.
        hop_size: samples of a frame.

    Returns:
        float64 [samples // hop_size] in Hz. WORLD's values, one more than there are frames, are interpolated linearly.

    Raises:
        CosyFlowError: pyworld is not installed.
    """
    world = import_world()
    signal = waveform.double().numpy()
    period = 1000 * hop_size / sample_rate  # milliseconds
    f0, times = world.harvest(signal, sample_rate, frame_period=period)
    if np.count_nonzero(f0) < FEWEST_VOICED:
        f0, times = world.dio(signal, sample_rate, frame_period=period)
    f0 = world.stonemask(signal, f0, times, sample_rate)
    frames = len(signal) // hop_size
    return F.interpolate(torch.from_numpy(f0)[None, None], frames, mode="linear")[0, 0].numpy()


def import_world() -> Any:
    """The package pyworld, which is an extra. Raises CosyFlowError when it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the version query that pyworld makes
            import pyworld
    except ImportError as error:
        raise CosyFlowError(
            "f0 by harvest needs pyworld, which is not installed: pip install 'cosyflow[harvest]', or take fast"
        ) from error
    return pyworld


def fast_f0(waveform: torch.Tensor, sample_rate: int, hop_size: int) -> np.ndarray:
    """Autocorrelation peaks joined to the best path (Boersma 1993, "Accurate short-term analysis of the fundamental
    frequency ..."), from 75 to 450 Hz.

    Args:
        waveform: [samples].
        sample_rate: Hz.
        hop_size: samples of a frame.

    Returns:
        float64 [samples // hop_size] in Hz, at the middle of each frame.
    """
    frames = waveform.shape[-1] // hop_size
    if frames == 0:
        return np.zeros(0)
    rate = sample_rate // DECIMATION
    windows = _windows(resample(waveform, sample_rate, rate), frames, hop_size * rate / sample_rate, rate)
    frequency, strength = _candidates(_autocorrelation(windows, rate), rate)
    loudness = _loudness(windows)
    strength[:, 0] = VOICING_THRESHOLD + (2 - loudness * (1 + VOICING_THRESHOLD) / SILENCE_THRESHOLD).clip(min=0)
    scale = SECONDS_OF_COSTS * sample_rate / hop_size
    return _best_path(frequency, strength, scale)


def _windows(waveform: torch.Tensor, frames: int, hop: float, rate: int) -> torch.Tensor:
    """The signal around the middle of each frame without its mean: [frames, samples of the window]."""
    length = _window_length(rate)
    starts = ((torch.arange(frames) + 0.5) * hop).long()
    padded = F.pad(waveform, (length // 2, length))
    windows = padded.unfold(0, length, 1)[starts]
    return windows - windows.mean(dim=1, keepdim=True)


def _window_length(rate: int) -> int:
    return int(PERIODS_IN_WINDOW * rate / LOWEST)


def _loudness(windows: torch.Tensor) -> np.ndarray:
    """The highest peak of each window relative to that of all: [frames]."""
    peaks = windows.abs().amax(dim=1)
    return (peaks / peaks.max().clamp(min=1e-12)).double().numpy()


def _autocorrelation(windows: torch.Tensor, rate: int) -> torch.Tensor:
    """That of the band BAND of the signal, freed from the window's: [frames, lags], 1 at lag 0."""
    length = windows.shape[1]
    taper, expected = _taper(length)
    power = torch.fft.rfft(windows * taper, n=_fft_size(length)).abs().square()
    hertz = torch.arange(power.shape[1]) * (rate / _fft_size(length))
    power = power * ((hertz > BAND[0]) & (hertz < BAND[1]))
    correlation = torch.fft.irfft(power)[:, : _longest_lag(rate) + 2]
    energy = correlation[:, :1].clamp(min=1e-12)
    normal: torch.Tensor = correlation / energy / expected[: correlation.shape[1]]
    return normal


def _longest_lag(rate: int) -> int:
    return math.ceil(rate / LOWEST)


def _fft_size(length: int) -> int:
    return 1 << (length + length // 2).bit_length()


@lru_cache(maxsize=8)
@ordinary_tensors
def _taper(length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A Hann window and its autocorrelation, 1 at lag 0."""
    taper = torch.hann_window(length)
    correlation = torch.fft.irfft(torch.fft.rfft(taper, n=_fft_size(length)).abs().square())
    return taper, correlation / correlation[0]


def _candidates(correlation: torch.Tensor, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (Hz) and strengths of the peaks of each frame, the first one standing for no voice: [frames, 1+K]."""
    shortest, longest = int(rate / HIGHEST), correlation.shape[1] - 2
    left, middle, right = (
        correlation[:, shortest + shift : longest + shift + 1].double() for shift in (-1, 0, 1)
    )  # [frames, lags]
    is_peak = (middle > left) & (middle >= right) & (middle > 0)
    # the parabola through three neighbours
    curvature = (2 * middle - left - right).clamp(min=1e-12)
    offset = (right - left) / (2 * curvature)
    height = middle + (right - left).square() / (8 * curvature)
    lag = torch.arange(shortest, longest + 1) + offset.clamp(-0.5, 0.5)
    frequency = rate / lag
    strength = height.clamp(max=1.0) + OCTAVE_COST * torch.log2(frequency / LOWEST)
    strength = strength.masked_fill(~is_peak, -torch.inf)
    best, place = strength.topk(min(CANDIDATES, strength.shape[1]), dim=1)
    chosen = frequency.gather(1, place)
    no_voice = torch.zeros(len(correlation), 1, dtype=torch.float64)
    return torch.cat([no_voice, chosen], dim=1).numpy(), torch.cat([no_voice, best], dim=1).numpy()


def _best_path(frequency: np.ndarray, strength: np.ndarray, scale: float) -> np.ndarray:
    """The candidate of each frame by which strengths less the costs of change are greatest (Viterbi): [frames]."""
    voiced = frequency > 0
    pitch = np.log2(np.where(voiced, frequency, 1.0))
    both = voiced[:-1, :, None] & voiced[1:, None, :]  # [frames - 1, from, to]
    jumps = OCTAVE_JUMP_COST * np.abs(pitch[:-1, :, None] - pitch[1:, None, :])
    changes = VOICING_COST * (voiced[:-1, :, None] != voiced[1:, None, :])
    costs = scale * np.where(both, jumps, changes)
    total = strength[0]
    origins = np.zeros(frequency.shape, np.int64)
    for frame in range(1, len(frequency)):
        routes = total[:, None] - costs[frame - 1]
        origins[frame] = routes.argmax(axis=0)
        total = routes.max(axis=0) + strength[frame]
    place = int(total.argmax())
    path = np.zeros(len(frequency))
    for frame in range(len(frequency) - 1, -1, -1):
        path[frame] = frequency[frame, place]
        place = origins[frame, place]
    return path
