"""Dropout that is quick on a CPU as well."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.jit import is_scripting  # type: ignore[attr-defined]


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
