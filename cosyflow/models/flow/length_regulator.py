"""From the token rate to the frame rate of CosyVoice 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cosyflow.models.layers.mish import Mish

EDGE_TOKENS = 20
"""Tokens at either end of a long utterance that are stretched by themselves; successive chunks overlap by as many."""


class LengthRegulator(nn.Module):
    """Linear interpolation along time, then convolutions."""

    def __init__(self, channels: int, layers: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [nn.Conv1d(channels, channels, 3, padding=1), nn.GroupNorm(1, channels), Mish()]
        self.model = nn.Sequential(*parts, nn.Conv1d(channels, channels, 1))

    def forward(self, x: torch.Tensor, frames: int) -> torch.Tensor:
        """x [B, T, C] -> [B, C, frames]: the whole batch, padding included, is stretched by one factor."""
        return self.smooth(stretch(x, frames))

    def smooth(self, stretched: torch.Tensor) -> torch.Tensor:
        """[B, C, F] -> [B, C, F]"""
        out: torch.Tensor = self.model(stretched)
        return out

    def stretch_parts(
        self, prompt: torch.Tensor, x: torch.Tensor, prompt_frames: int, frames: int, edge_frames: int
    ) -> torch.Tensor:
        """Stretches prompt and utterance by themselves, so that the mel is cut exactly between them.

        In an utterance of more than two edges, each edge of `EDGE_TOKENS` tokens becomes `edge_frames` frames, so that
        the overlap of successive chunks has the same frames in both.

        Args:
            prompt: [B, P, C], P may be 0.
            x: [B, T, C]
            prompt_frames, frames: frames of each.
            edge_frames: frames of an edge.

        Returns:
            [B, C, prompt_frames + frames]
        """
        parts = [] if prompt.size(1) == 0 else [stretch(prompt, prompt_frames)]
        if x.size(1) > 2 * EDGE_TOKENS:
            parts.append(stretch(x[:, :EDGE_TOKENS], edge_frames))
            parts.append(stretch(x[:, EDGE_TOKENS:-EDGE_TOKENS], frames - 2 * edge_frames))
            parts.append(stretch(x[:, -EDGE_TOKENS:], edge_frames))
        else:
            parts.append(stretch(x, frames))
        return self.smooth(torch.cat(parts, dim=2))


def stretch(x: torch.Tensor, frames: int) -> torch.Tensor:
    """Linear interpolation along time: [B, T, C] -> [B, C, frames]."""
    return F.interpolate(x.transpose(1, 2), size=frames, mode="linear")
