"""Layers with float32 weights that compute in the type of their input: bfloat16 activations need no autocast."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.jit import is_scripting, is_tracing  # type: ignore[attr-defined]

WORTHWHILE = 2**24
"""Multiplications from which oneDNN gains more than it takes to prepare a new shape, a quarter of a millisecond."""


@functools.cache
def prefers_onednn() -> bool:
    """Whether oneDNN multiplies float32 faster here than MKL, which does not use AVX-512 on AMD processors."""
    has_operator = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_operator and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _multiply(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x [R, K], weight [N, K], bias [N] -> [R, N], by oneDNN."""
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class _OneDnnLinear(torch.autograd.Function):
    """`F.linear` of float32 tensors on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return _multiply(x.reshape(-1, x.size(-1)), weight, bias).view(*x.shape[:-1], weight.size(0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        gradient = gradient.reshape(-1, weight.size(0))
        return (
            _multiply(gradient, weight.t()).view_as(x) if for_x else None,
            _multiply(gradient.t(), x.reshape(-1, x.size(-1)).t()) if for_weight else None,
            gradient.sum(dim=0) if for_bias else None,
        )


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x [..., K], weight [N, K], bias [N] -> [..., N], as `F.linear`; large float32 products on a CPU by oneDNN."""
    if not is_scripting():  # noqa: SIM102
        if (
            x.device.type == "cpu"
            and x.dtype == weight.dtype == torch.float32
            and x.numel() * weight.size(0) >= WORTHWHILE
            and prefers_onednn()
            and not torch.is_autocast_enabled("cpu")
            and not is_tracing()
            and not torch.compiler.is_compiling()
        ):
            product: torch.Tensor = _OneDnnLinear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
            return product
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """A linear map."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = self.bias
        return linear(x, self.weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


class LayerNorm(nn.LayerNorm):
    """A layer norm with scale and shift."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


def drop_by_bits(x: torch.Tensor, rate: float) -> torch.Tensor:
    """Dropout on a CPU: an element is kept if 16 random bits, as a signed number, are large enough.

    torch draws a double for each element; 64 random bits for four of them take a tenth of the time. The share that is
    dropped is `rate` to the nearest 1/65536.
    """
    count = x.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = bits[:count].view(x.shape) >= round(rate * 65536) - 32768
    return x * kept.to(x.dtype).mul_(1 / (1 - rate))


def dropout(x: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """Sets a share `rate` of the elements to zero when training, and scales up the others."""
    if not is_scripting():  # noqa: SIM102
        if training and rate > 0 and not x.is_cuda and not torch.compiler.is_compiling():
            return drop_by_bits(x, rate)
    return F.dropout(x, rate, training)


class Dropout(nn.Module):
    """`dropout` as a module."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return dropout(x, self.rate, self.training)


class Mish(nn.Mish):
    """`x tanh(ln(1 + e^x))`.

    Between convolutions and layers that have the channels last, the gradient is not laid out in memory as the input is,
    and torch's backward pass takes twelve times as long. Here the gradient is first copied into the input's layout.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = super().forward(x)
        if out.requires_grad:
            strides = x.stride()

            def lay_out(gradient: torch.Tensor) -> torch.Tensor:
                if gradient.stride() == strides:
                    return gradient
                return gradient.new_empty_strided(gradient.shape, strides).copy_(gradient)

            out.register_hook(lay_out)
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
