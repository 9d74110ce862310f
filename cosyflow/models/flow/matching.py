"""Conditional flow matching (Lipman et al. 2023) with optimal-transport paths and classifier-free guidance, and the
noise that inference starts from, from generators of its own: no global seed is read or changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import nn

from cosyflow.config.flow import MatchingConfig
from cosyflow.models.layers.packing import Frames


@dataclass(frozen=True)
class Condition:
    """What the velocity depends on besides point and time."""

    mu: torch.Tensor
    """[B, C, F], the encoder's output."""
    mask: torch.Tensor
    """[B, 1, F], 1 at frames, 0 at padding."""
    speaker: torch.Tensor
    """[B, C]"""
    known: torch.Tensor
    """[B, C, F], mel frames that are given, elsewhere 0."""

    def keep(self, which: torch.Tensor) -> Condition:
        """Removes everything but the mask where `which` (bool [B]) is False."""
        kept = which.to(self.mu.dtype)
        frames = kept[:, None, None]
        return Condition(self.mu * frames, self.mask, self.speaker * kept[:, None], self.known * frames)


class FlowMatching(nn.Module):
    """The estimator of the velocity, how it is trained and how the path is followed."""

    def __init__(self, config: MatchingConfig, estimator: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.estimator = estimator

    def point_and_velocity(
        self, mel: torch.Tensor, noise: torch.Tensor, time: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the path from noise (t = 0) to mel (t = 1) is at `time`, and its velocity.

        With s = 1 - sigma_min: y = (1 - s t) noise + t mel, dy/dt = mel - s noise.

        Args:
            mel, noise: [B, C, F]
            time: [B]
        """
        spread = 1 - self.config.sigma_min
        t = time[:, None, None]
        return (1 - spread * t) * noise + t * mel, mel - spread * noise

    def loss(
        self,
        mel: torch.Tensor,
        noise: torch.Tensor,
        time: torch.Tensor,
        condition: Condition,
        frames: Frames,
        streaming: bool,
    ) -> torch.Tensor:
        """Squared error of the estimated velocity, mean over mel channels, sum over the frames of the mask: []."""
        point, velocity = self.point_and_velocity(mel, noise, time)
        estimated = self.estimator(
            point, condition.mask, condition.mu, time, condition.speaker, condition.known, streaming, frames
        )
        error: torch.Tensor = (estimated - velocity).float() * condition.mask
        return error.square().sum() / mel.size(1)

    def solve(self, noise: torch.Tensor, condition: Condition, streaming: bool) -> torch.Tensor:
        """Follows the velocity from noise to mel in Euler steps at t = 1 - cos(pi/2 k/n): [B, C, F] -> [B, C, F].

        Each step estimates the velocity with and without the condition, in one batch of 2B, and goes beyond the first,
        from the second.
        """
        steps, guidance = self.config.n_timesteps, self.config.inference_cfg_rate
        batch = noise.size(0)
        which = torch.arange(2 * batch, device=noise.device) < batch
        twice = Condition(
            torch.cat((condition.mu, condition.mu)),
            torch.cat((condition.mask, condition.mask)),
            torch.cat((condition.speaker, condition.speaker)),
            torch.cat((condition.known, condition.known)),
        ).keep(which)
        times = [1 - math.cos(math.pi / 2 * step / steps) for step in range(steps + 1)]
        point = noise
        for now, after in pairwise(times):
            velocity = self.estimator(
                torch.cat((point, point)),
                twice.mask,
                twice.mu,
                point.new_full((2 * batch,), now),
                twice.speaker,
                twice.known,
                streaming=streaming,
            )
            conditional, unconditional = velocity.chunk(2)
            point = point + (after - now) * ((1 + guidance) * conditional - guidance * unconditional)
        return point


BLOCK_FRAMES = 15000
"""Frames of the constant noise of the released CosyVoice 2 and 3: 300 s at 50 frames a second."""


@lru_cache(maxsize=2)
def _noise_blocks(channels: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.cat([torch.randn(1, channels, BLOCK_FRAMES, generator=generator) for _ in range(count)], dim=2)


def fixed_noise(channels: int, frames: int) -> torch.Tensor:
    """The constant noise of CosyVoice 2 and 3: float32 [1, channels, frames] on the CPU.

    A chunk starts from the same noise as the whole utterance does, which is why it is constant. The first 15,000 frames
    are those of the released models; ours goes on with further blocks, so that no utterance is too long.
    """
    return _noise_blocks(channels, max(1, -(-frames // BLOCK_FRAMES)))[:, :, :frames]


def seeded_noise(channels: int, frames: int, seed: int) -> torch.Tensor:
    """Noise of CosyVoice 1: float32 [1, channels, frames] on the CPU, new for each seed."""
    return torch.randn(1, channels, frames, generator=torch.Generator().manual_seed(seed))
