"""Whether a recording holds speech that a model can learn from: measured in its samples, compared with limits.

The defaults lie far outside of what 68 recordings of LibriSpeech, LibriTTS and VCTK show (levels from -33 dB, at
most 0.0004 % clipped, offsets up to 0.001); to measure an hour of 24 kHz speech takes about 4 s on one core.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FRAME_SECONDS = 0.02
LOUD_SHARE = 0.9
"""The level is that of the frame which is louder than this share of the others, so that pauses do not count."""
FLOOR = 1e-10
_NEAR_PEAK = 0.98
_FLAT = 1e-4
_SILENCE = -70.0
"""dB of full scale: steps of 16 bits have -90."""


@dataclass(frozen=True)
class Limits:
    """What a recording may be like."""

    min_level: float = -50.0
    """dB of full scale, of the loud frames of the mix of all channels."""
    max_cancelled: float = 20.0
    """dB that the mix of the channels may be quieter than they are."""
    max_clipped: float = 0.01
    """Share of samples on flat tops, 0 to 1."""
    max_dc: float = 0.05
    """Mean of the samples; full scale is 1."""


@dataclass(frozen=True)
class Measures:
    """Of one recording, as `Limits` names them."""

    level: float
    cancelled: float
    clipped: float
    dc: float
    is_silent: bool

    def why_unfit(self, limits: Limits) -> str | None:
        """The first limit that is not kept, with the measured value; None when all are."""
        if self.cancelled > limits.max_cancelled:
            return f"channels cancel each other: their mix is {self.cancelled:.0f} dB quieter; use one of them"
        if self.is_silent:
            return f"silent: {self.level:.0f} dB of full scale"
        if self.level < limits.min_level:
            return f"too quiet: {self.level:.1f} dB of full scale, at least {limits.min_level:g} dB are needed"
        if abs(self.dc) > limits.max_dc:
            return f"DC offset: {self.dc:.3f} of full scale, at most {limits.max_dc:g} is allowed"
        if self.clipped > limits.max_clipped:
            return f"clipped: {self.clipped:.1%} of its samples, at most {limits.max_clipped:.1%} are allowed"
        return None


def measure(samples: np.ndarray, sample_rate: int) -> Measures:
    """Measures float32 samples [samples, channels] of `sample_rate` Hz."""
    mix = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    dc = float(mix.mean(dtype=np.float64))
    mix = mix - np.float32(dc)
    level = _level(mix, sample_rate)
    loudest = max(_level(channel, sample_rate) for channel in samples.T) if samples.shape[1] > 1 else level
    return Measures(level, loudest - level, _clipped_share(samples), dc, level < _SILENCE)


def _level(signal: np.ndarray, sample_rate: int) -> float:
    """dB of the loud frames of a signal [samples], each without its mean."""
    length = max(1, min(len(signal), round(FRAME_SECONDS * sample_rate)))
    frames = signal[: len(signal) // length * length].reshape(-1, length)
    variance = np.einsum("ij,ij->i", frames, frames) / length - frames.mean(axis=1) ** 2
    power = np.quantile(variance, LOUD_SHARE)
    return float(10 * np.log10(max(power, FLOOR)))


def _clipped_share(samples: np.ndarray) -> float:
    """Share of samples that are as high as the one before them, near the peak."""
    peak = max(float(samples.max()), -float(samples.min()))
    if peak == 0:
        return 0.0
    places, channels = np.nonzero(np.abs(samples[1:]) >= _NEAR_PEAK * peak)
    steps = np.abs(samples[places + 1, channels]) - np.abs(samples[places, channels])
    return float(np.count_nonzero(np.abs(steps) <= _FLAT * peak) / samples.size)
