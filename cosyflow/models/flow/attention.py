"""Bidirectional attention over mel frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def rotate_first_channels(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotates neighbouring pairs of the first R channels by an angle that grows with time; the others stay.

    The released CosyVoice 3 was trained with the rotation before the split into heads, with R the size of one head: its
    first head alone knows positions.

    Args:
        x: [B, T, C]
        cosine, sine: [T, R / 2]
    """
    size = 2 * cosine.size(1)
    even, odd = x[..., 0:size:2], x[..., 1:size:2]
    rotated = torch.stack((even * cosine - odd * sine, odd * cosine + even * sine), dim=3).flatten(2)
    return torch.cat((rotated, x[..., size:]), dim=2)


class FrameAttention(nn.Module):
    """Multi-head attention of D channels, in heads of `head_size`, with the key names of the official checkpoints."""

    def __init__(self, size: int, heads: int, head_size: int, dropout: float, projection_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = head_size
        inner = heads * head_size
        self.to_q = nn.Linear(size, inner, bias=projection_bias)
        self.to_k = nn.Linear(size, inner, bias=projection_bias)
        self.to_v = nn.Linear(size, inner, bias=projection_bias)
        self.to_out = nn.Sequential(nn.Linear(inner, size), nn.Dropout(dropout))

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Three times [B, T, heads * head_size] -> [B, T, D]; mask is bool, broadcast to [B, heads, T, T]."""
        batch, length = query.size(0), query.size(1)
        mixed = F.scaled_dot_product_attention(
            query.view(batch, length, self.heads, self.head_size).transpose(1, 2),
            key.view(batch, length, self.heads, self.head_size).transpose(1, 2),
            value.view(batch, length, self.heads, self.head_size).transpose(1, 2),
            attn_mask=mask,
        )
        out: torch.Tensor = self.to_out(mixed.transpose(1, 2).reshape(batch, length, self.heads * self.head_size))
        return out

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[B, T, D] -> [B, T, D]"""
        return self.attend(self.to_q(x), self.to_k(x), self.to_v(x), mask)

    def forward_rotated(
        self, x: torch.Tensor, mask: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor
    ) -> torch.Tensor:
        """As `forward`, queries and keys being rotated by `rotate_first_channels`."""
        query = rotate_first_channels(self.to_q(x), cosine, sine)
        key = rotate_first_channels(self.to_k(x), cosine, sine)
        return self.attend(query, key, self.to_v(x), mask)
