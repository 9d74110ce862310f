"""What is done differently for one kind of processor, and what was measured for it.

All other code calls these functions and names no processor. Unless other hardware is named, times are milliseconds of
one core of an AMD EPYC with AVX-512, torch 2.11, the best of eight; "A against B" is this way against torch's own.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable
from torch.jit import is_scripting, is_tracing  # type: ignore[attr-defined]

WORTHWHILE = 2**24
"""Multiplications from which oneDNN gains more than it takes to prepare a new shape, a quarter of a millisecond."""


@functools.cache
def prefers_onednn() -> bool:
    """Whether oneDNN multiplies float32 faster here than MKL, which does not use AVX-512 on AMD processors.

    235 to 250 GFLOPS a core by oneDNN, 105 to 109 by MKL.
    """
    has_operator = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return has_operator and torch.backends.cpu.get_cpu_capability() == "AVX512"


@functools.cache
def emulates_bfloat16() -> bool:
    """Whether this machine's processor has no instruction that multiplies bfloat16: AVX-512 BF16 or AMX.

    torch then computes it by way of float32, several times as slowly. An update of the language model of
    tests/bench/llm.py with AVX2 alone took ten times as long as in float32.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    has_instruction = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return not (has_instruction and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`F.linear`: x [..., K], weight [N, K], bias [N] -> [..., N]. Large float32 products on a CPU are oneDNN's.

    Forward and backward pass of 2,000 x 1,024 by 1,024 x 1,024: 59 against 125. Compiled and traced code is torch's.
    """
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


def dropout(x: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """Sets a share `rate` of the elements to zero when training, and scales up the others: the shape of x.

    torch draws a double for each element on a CPU; 64 random bits for four of them take 3.7 against 10.1 for two
    million elements.
    """
    if not is_scripting():  # noqa: SIM102
        if training and rate > 0 and not x.is_cuda and not torch.compiler.is_compiling():
            return _drop_by_bits(x, rate)
    return F.dropout(x, rate, training)


def _drop_by_bits(x: torch.Tensor, rate: float) -> torch.Tensor:
    """An element is kept if 16 random bits, as a signed number, are large enough.

    The share that is dropped is `rate` to the nearest 1/65536.
    """
    count = x.numel()
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = bits[:count].view(x.shape) >= round(rate * 65536) - 32768
    return x * kept.to(x.dtype).mul_(1 / (1 - rate))


def take_gradient_as_laid_out(out: torch.Tensor, x: torch.Tensor) -> None:
    """Copies the gradient of `out`, which was made of x element by element, into the memory layout of x.

    Between convolutions and layers that have the channels last the gradient comes in another layout than x, for which
    torch's backward pass of Mish is slow: for 8 x 256 x 500 in both directions 8.5 against 43.6.
    """
    if not out.requires_grad:
        return
    strides = x.stride()

    def lay_out(gradient: torch.Tensor) -> torch.Tensor:
        if gradient.stride() == strides:
            return gradient
        return gradient.new_empty_strided(gradient.shape, strides).copy_(gradient)

    out.register_hook(lay_out)


def lay_out_for_convolution(x: torch.Tensor) -> torch.Tensor:
    """x [B, C, H, W] with the channels last in memory, as a CPU convolves large maps of few channels faster.

    A layer of the spectrogram discriminators, 32 channels, 4 x 200 x 256, both directions: 72 against 85; all five
    layers up to twice as fast.
    """
    return x.to(memory_format=torch.channels_last)


def attends_one_by_one(query: torch.Tensor) -> bool:
    """Whether sequences of several lengths are best attended to one after the other, without padding.

    On a CPU six sequences of 40 to 500 positions in 8 heads of 64 take 9.9, padded to one length with a mask 36.1. A
    GPU is filled by all sequences at once.
    """
    return not query.is_cuda


def has_packed_kernel(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether one kernel attends to sequences that lie end to end: on CUDA, in half precision."""
    return device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def keep_freed_memory() -> bool:
    """Lets glibc keep what is freed instead of giving it back to the kernel, for training on a CPU; whether it will.

    By default an activation of over 32 MB is mapped anew each time, and the kernel clears every page of it at the
    first touch: 1.2 million page faults in a step of 8,000 tokens of the language model in tests/bench/llm.py.
    The price is that the process never gets smaller (mallopt(3)).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
