"""One-dimensional convolutions of the vocoder and their weight normalisation (arXiv 1602.07868)."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

AnyConvolution = TypeVar("AnyConvolution", bound=nn.Module)


class PaddedConv1d(nn.Conv1d):
    """A convolution that adds `left` and `right` zero frames to its input.

    With `right=0` it is causal; with `left=0` it looks `right` frames ahead. `final=False` says that the last `right`
    frames of the input are that look-ahead, so that the output is `right` frames shorter than the input.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        left: int,
        right: int,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        symmetric = left == right
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding=left if symmetric else 0, dilation=dilation
        )
        self.left, self.right = (0, 0) if symmetric else (left, right)

    def forward(self, x: torch.Tensor, final: bool = True) -> torch.Tensor:  # [B, in, T] -> [B, out, T']
        right = self.right if final else 0
        if self.left or right:
            x = F.pad(x, (self.left, right))
        return super().forward(x)


class NearestUpsampleConv1d(PaddedConv1d):
    """Repeats each frame `rate` times, then convolves causally: the up-sampling stage of the causal generator."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, rate: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, left=kernel_size - 1, right=0)
        self.rate = rate

    def forward(self, x: torch.Tensor, final: bool = True) -> torch.Tensor:  # [B, in, T] -> [B, out, T * rate]
        return super().forward(x.repeat_interleave(self.rate, dim=2), final)


def same_length_conv(
    in_channels: int, out_channels: int, kernel_size: int, *, dilation: int = 1, causal: bool
) -> PaddedConv1d:
    """A weight-normalised convolution with as many output frames as input frames."""
    reach = (kernel_size - 1) * dilation
    left, right = (reach, 0) if causal else (reach // 2, reach - reach // 2)
    return weight_norm(PaddedConv1d(in_channels, out_channels, kernel_size, left=left, right=right, dilation=dilation))


def weight_norm(module: AnyConvolution) -> AnyConvolution:
    """Splits `weight` into gain and direction: keys `parametrizations.weight.original0` and `original1`.

    Loading also accepts the older names `weight_g` and `weight_v`.
    """
    parametrizations.weight_norm(module)
    return module


def remove_weight_norm(module: nn.Module) -> None:
    """Makes each normalised weight below `module` an ordinary parameter: same output, less work at each call."""
    for child in list(module.modules()):
        if parametrize.is_parametrized(child, "weight"):
            parametrize.remove_parametrizations(child, "weight", leave_parametrized=True)
