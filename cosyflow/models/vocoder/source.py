"""The harmonic-plus-noise excitation of a neural source-filter vocoder (Wang et al., arXiv 1904.12088).

Each harmonic is a sine whose phase is the sum of its frequency over time. f0 is constant within a mel frame, so the sum
is taken over frames, in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from cosyflow.config.vocoder import HiFTConfig


@dataclass(frozen=True)
class SourceNoise:
    """Everything random in one excitation of `samples` samples and `harmonics` sines (fundamental included)."""

    additive: torch.Tensor
    """[B, samples, harmonics], standard normal."""
    initial_phase: torch.Tensor | None = None
    """[B, harmonics] in cycles, uniform in [-0.5, 0.5), 0 for the fundamental; where the phase is summed by sample."""


class FixedNoise:
    """Noise, uniform in [0, 1), that is the same at a given sample of every call: [1, samples, harmonics].

    It is drawn in blocks with a seed each, as far as it is asked for, so that a longer request repeats a shorter one.
    """

    BLOCK = 1 << 15  # samples

    def __init__(self, harmonics: int, seed: int = 0) -> None:
        self.harmonics = harmonics
        self.seed = seed
        self._drawn = torch.empty(1, 0, harmonics)

    def take(self, samples: int, device: torch.device) -> torch.Tensor:
        self._drawn = self._drawn.to(device)
        first, end = self._drawn.shape[1] // self.BLOCK, math.ceil(samples / self.BLOCK)
        if end > first:
            blocks = [self._draw_block(block).to(device) for block in range(first, end)]
            self._drawn = torch.cat([self._drawn, *blocks], dim=1)
        return self._drawn[:, :samples]

    def _draw_block(self, block: int) -> torch.Tensor:
        rng = torch.Generator().manual_seed(self.seed + block)
        return torch.rand(1, self.BLOCK, self.harmonics, generator=rng)


class HarmonicSource(nn.Module):
    """f0 in Hz at mel frames -> excitation at samples."""

    def __init__(self, config: HiFTConfig) -> None:
        super().__init__()
        self.harmonics = config.nb_harmonics + 1
        self.sampling_rate = config.sampling_rate
        self.samples_per_frame = config.samples_per_frame
        self.sine_amplitude = config.nsf_alpha
        self.voiced_noise = config.nsf_sigma
        self.voiced_threshold = config.nsf_voiced_threshold
        self.phase: Literal["sample", "frame", "frame_constant"] = config.excitation_phase
        self.l_linear = nn.Linear(self.harmonics, 1)

    def draw_noise(
        self, batch: int, frames: int, device: torch.device, rng: torch.Generator | None = None
    ) -> SourceNoise:
        """Noise for `frames` mel frames; `rng` lives on `device`, None means the global generator of torch."""
        shape = (batch, frames * self.samples_per_frame, self.harmonics)
        additive = torch.randn(shape, device=device, generator=rng)
        if self.phase != "sample":
            return SourceNoise(additive)
        initial_phase = torch.rand(batch, self.harmonics, device=device, generator=rng) - 0.5
        initial_phase[:, 0] = 0
        return SourceNoise(additive, initial_phase)

    def forward(self, f0: torch.Tensor, noise: SourceNoise) -> torch.Tensor:
        """f0 [B, F] -> excitation [B, 1, F * samples_per_frame]. No gradient reaches f0."""
        with torch.no_grad():
            excitation = self.harmonic_plus_noise(f0.float(), noise)
        return torch.tanh(self.l_linear(excitation)).transpose(1, 2)

    def harmonic_plus_noise(self, f0: torch.Tensor, noise: SourceNoise) -> torch.Tensor:
        """f0 [B, F] -> [B, T, harmonics]: sines with a little noise where voiced, noise alone elsewhere."""
        if self.phase == "sample":
            phase = self._phase_by_sample(f0, noise.initial_phase)
        else:
            phase = self._phase_by_frame(f0, hold=self.phase == "frame_constant")
        voiced = (f0 > self.voiced_threshold).repeat_interleave(self.samples_per_frame, dim=1).unsqueeze(-1)
        deviation = torch.where(voiced, self.voiced_noise, self.sine_amplitude / 3)
        return self.sine_amplitude * torch.sin(phase) * voiced + deviation * noise.additive

    def _phase_by_sample(self, f0: torch.Tensor, initial_phase: torch.Tensor | None) -> torch.Tensor:
        """Phase [B, T, harmonics] in radians, summed over all samples up to and including the current one."""
        increment = f0.double() / self.sampling_rate  # [B, F] cycles per sample
        before_frame = (increment.cumsum(1) - increment) * self.samples_per_frame
        samples = torch.arange(1, self.samples_per_frame + 1, device=f0.device)
        fundamental = before_frame.unsqueeze(-1) + increment.unsqueeze(-1) * samples  # [B, F, samples_per_frame]
        # A harmonic of the fraction of a cycle and one of the whole phase differ by whole cycles only.
        fraction = torch.frac(fundamental).float().flatten(1).unsqueeze(-1)
        cycles = torch.frac(fraction * self._harmonic_numbers(f0))
        if initial_phase is not None:
            cycles = cycles + initial_phase.unsqueeze(1)
        return 2 * math.pi * cycles

    def _phase_by_frame(self, f0: torch.Tensor, hold: bool) -> torch.Tensor:
        """Phase [B, T, harmonics] in radians, summed over frames; held within a frame, or linear between centres."""
        cycles_per_sample = torch.remainder(f0.unsqueeze(-1) * self._harmonic_numbers(f0) / self.sampling_rate, 1)
        # The sum is taken in float64 so that the phase of a prefix does not depend on what follows it.
        at_centre = cycles_per_sample.cumsum(1, dtype=torch.float64).float() * 2 * math.pi * self.samples_per_frame
        if hold:
            return at_centre.repeat_interleave(self.samples_per_frame, dim=1)
        by_harmonic = at_centre.transpose(1, 2)
        return F.interpolate(by_harmonic, scale_factor=self.samples_per_frame, mode="linear").transpose(1, 2)

    def _harmonic_numbers(self, like: torch.Tensor) -> torch.Tensor:
        return torch.arange(1, self.harmonics + 1, dtype=torch.float32, device=like.device)
