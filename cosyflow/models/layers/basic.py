"""Layers with float32 weights that compute in the type of their input: bfloat16 activations need no autocast."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from cosyflow.backends import dropout, linear, take_gradient_as_laid_out


class Linear(nn.Linear):
    """A linear map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = self.bias
        return linear(x, self.weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


class LayerNorm(nn.LayerNorm):
    """A layer norm with scale and shift."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class Dropout(nn.Module):
    """`dropout` as a module."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return dropout(x, self.rate, self.training)


class Mish(nn.Mish):
    """The activation `x tanh(ln(1 + e^x))` (Misra 2019)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = super().forward(x)
        take_gradient_as_laid_out(out, x)
        return out


class CausalConv1d(nn.Conv1d):
    """A convolution whose output at a time depends on that time and those before it: [B, C, T] -> [B, C', T]."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size, groups=groups)
        self.left = kernel_size - 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv1d(F.pad(x, (self.left, 0)), self.weight, self.bias, groups=self.groups)


def time_sinusoids(time: torch.Tensor, size: int) -> torch.Tensor:
    """time [B] in [0, 1] -> [B, size]: sines of 1000 t at size / 2 frequencies from 1 down to 1/10000, then cosines."""
    half = size // 2
    channel = torch.arange(half, device=time.device, dtype=torch.float32)
    frequency = torch.exp(channel * (-math.log(10000.0) / (half - 1)))
    angle = 1000.0 * time.float()[:, None] * frequency
    return torch.cat((angle.sin(), angle.cos()), dim=1).to(time.dtype)
