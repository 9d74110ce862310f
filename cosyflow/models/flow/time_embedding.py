"""Sinusoids of the time on the path from noise to mel."""

from __future__ import annotations

import math

import torch


def time_sinusoids(time: torch.Tensor, size: int) -> torch.Tensor:
    """time [B] in [0, 1] -> [B, size]: sines of 1000 t at size / 2 frequencies from 1 down to 1/10000, then cosines."""
    half = size // 2
    channel = torch.arange(half, device=time.device, dtype=torch.float32)
    frequency = torch.exp(channel * (-math.log(10000.0) / (half - 1)))
    angle = 1000.0 * time.float()[:, None] * frequency
    return torch.cat((angle.sin(), angle.cos()), dim=1).to(time.dtype)
