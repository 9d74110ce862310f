"""Bidirectional attention over mel frames."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cosyflow.models.flow.frames import Frames
from cosyflow.models.layers.dropout import Dropout
from cosyflow.models.layers.linear import Linear


def rotate_first_channels(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotates neighbouring pairs of the first R channels by an angle that grows with time; the others stay.

    The released CosyVoice 3 was trained with the rotation before the split into heads, with R the size of one head: its
    first head alone knows positions.

    Args:
        x: [..., T, C]
        cosine, sine: [T, R / 2]
    """
    size = 2 * cosine.size(1)
    even, odd = x[..., 0:size:2], x[..., 1:size:2]
    rotated = torch.stack((even * cosine - odd * sine, odd * cosine + even * sine), dim=-1).flatten(-2)
    return torch.cat((rotated, x[..., size:]), dim=-1)


class FrameAttention(nn.Module):
    """Multi-head attention of D channels, in heads of `head_size`, with the key names of the official checkpoints.

    The input is a padded batch [B, T, D], or its valid frames [F, D] with `frames` telling where these lie.
    """

    def __init__(self, size: int, heads: int, head_size: int, dropout: float, projection_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = head_size
        inner = heads * head_size
        self.to_q = Linear(size, inner, bias=projection_bias)
        self.to_k = Linear(size, inner, bias=projection_bias)
        self.to_v = Linear(size, inner, bias=projection_bias)
        self.to_out = nn.Sequential(Linear(inner, size), Dropout(dropout))

    def forward(self, x: torch.Tensor, mask: torch.Tensor, frames: Frames | None) -> torch.Tensor:
        """x -> the same shape; mask is bool, [B, 1, 1, T] or [B, 1, T, T]."""
        return self.attend(self.to_q(x), self.to_k(x), self.to_v(x), mask, frames)

    def forward_rotated(
        self, x: torch.Tensor, mask: torch.Tensor, frames: Frames | None, cosine: torch.Tensor, sine: torch.Tensor
    ) -> torch.Tensor:
        """As `forward`, queries and keys being rotated by `rotate_first_channels`."""
        query = rotate_first_channels(self.to_q(x), cosine, sine)
        key = rotate_first_channels(self.to_k(x), cosine, sine)
        return self.attend(query, key, self.to_v(x), mask, frames)

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor,
        frames: Frames | None,
    ) -> torch.Tensor:
        """Three times [B, T, heads * head_size] or [F, ...] -> [B, T, D] or [F, D]."""
        if frames is None:
            mixed = self.mix(query, key, value, mask)
        elif query.is_cuda:
            mixed = frames.pack(self.mix(frames.unpack(query), frames.unpack(key), frames.unpack(value), mask))
        else:
            mixed = self.mix_one_by_one(query, key, value, mask, frames)
        out: torch.Tensor = self.to_out(mixed)
        return out

    def mix(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        batch, length = query.size(0), query.size(1)
        mixed = F.scaled_dot_product_attention(
            query.view(batch, length, self.heads, self.head_size).transpose(1, 2),
            key.view(batch, length, self.heads, self.head_size).transpose(1, 2),
            value.view(batch, length, self.heads, self.head_size).transpose(1, 2),
            attn_mask=mask,
        )
        return mixed.transpose(1, 2).reshape(batch, length, self.heads * self.head_size)

    def mix_one_by_one(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, frames: Frames
    ) -> torch.Tensor:
        """Each sequence in its own length; a mask is needed only where it is more than the end of the sequence."""
        mixed = []
        parts = zip(*(flat.split(frames.lengths) for flat in (query, key, value)), strict=True)
        for sequence, (q, k, v) in enumerate(parts):
            # two dimensions: with three, torch takes a path that is three times as slow
            seen = None if mask.size(2) == 1 else mask[sequence, 0, : len(q), : len(q)]
            mixed.append(self.mix(q[None], k[None], v[None], seen)[0])
        return torch.cat(mixed)
