"""The noise that inference starts from, from generators of its own: no global seed is read or changed."""

from __future__ import annotations

from functools import lru_cache

import torch

BLOCK_FRAMES = 15000
"""Frames of the constant noise of the released CosyVoice 2 and 3: 300 s at 50 frames a second."""


@lru_cache(maxsize=2)
def _blocks(channels: int, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.cat([torch.randn(1, channels, BLOCK_FRAMES, generator=generator) for _ in range(count)], dim=2)


def fixed_noise(channels: int, frames: int) -> torch.Tensor:
    """The constant noise of CosyVoice 2 and 3: float32 [1, channels, frames] on the CPU.

    A chunk starts from the same noise as the whole utterance does, which is why it is constant. The first 15,000 frames
    are those of the released models; ours goes on with further blocks, so that no utterance is too long.
    """
    return _blocks(channels, max(1, -(-frames // BLOCK_FRAMES)))[:, :, :frames]


def seeded_noise(channels: int, frames: int, seed: int) -> torch.Tensor:
    """Noise of CosyVoice 1: float32 [1, channels, frames] on the CPU, new for each seed."""
    return torch.randn(1, channels, frames, generator=torch.Generator().manual_seed(seed))
