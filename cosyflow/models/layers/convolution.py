"""Convolutions along time that see the left only, or a few positions to the right."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class CausalConv1d(nn.Conv1d):
    """A convolution whose output at a time depends on that time and those before it: [B, C, T] -> [B, C', T]."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, groups=groups)
        self.left = kernel_size - 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv1d(F.pad(x, (self.left, 0)), self.weight, self.bias, groups=self.groups)


class Lookahead(nn.Module):
    """Mixes each position with a few to its right and two to its left, and adds the result to it."""

    def __init__(self, size: int, hidden_size: int, positions: int) -> None:
        super().__init__()
        self.positions = positions
        self.conv1 = nn.Conv1d(size, hidden_size, positions + 1)
        self.conv2 = CausalConv1d(hidden_size, size, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, D] -> [B, T, D], zeros being to the right of the last position."""
        right = F.pad(x.transpose(1, 2), (0, self.positions))
        mixed: torch.Tensor = self.conv2(F.leaky_relu(self.conv1(right)))
        return x + mixed.transpose(1, 2)


class Upsample(nn.Module):
    """Repeats each position and smooths with a causal convolution."""

    def __init__(self, size: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = CausalConv1d(size, size, 2 * factor + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, D] -> [B, T * factor, D]"""
        repeated = x.repeat_interleave(self.factor, dim=1)
        smooth: torch.Tensor = self.conv(repeated.transpose(1, 2))
        return smooth.transpose(1, 2)
