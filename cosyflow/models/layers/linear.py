"""Layers with float32 weights that compute in the type of their input: bfloat16 activations need no autocast."""

from __future__ import annotations

import functools
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
