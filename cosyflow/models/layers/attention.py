"""Self-attention of the encoders, with relative positions, and of the estimators of the flow."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from cosyflow.backends import attends_one_by_one, dropout
from cosyflow.models.layers.basic import Dropout, Linear
from cosyflow.models.layers.packing import Frames, Rows


def distance_table(furthest: int, nearest: int, size: int, like: torch.Tensor) -> torch.Tensor:
    """Sinusoids of the distances `furthest`, `furthest - 1`, ..., `nearest`: [furthest - nearest + 1, size].

    Channel 2c is sin(d / 10000^(2c/size)), channel 2c + 1 the cosine. Computed in float32, given in the type of `like`.
    """
    distance = torch.arange(furthest, nearest - 1, -1, device=like.device, dtype=torch.float32)
    channel = torch.arange(0, size, 2, device=like.device, dtype=torch.float32)
    angle = distance[:, None] * torch.exp(channel * (-math.log(10000.0) / size))
    return torch.stack((angle.sin(), angle.cos()), dim=2).flatten(1).to(like.dtype)


def align_distances(scores: torch.Tensor, num_keys: int) -> torch.Tensor:
    """Turns scores by distance into scores by key: [B, H, Q, M] -> [B, H, Q, num_keys].

    Column c of query i holds the distance `num_keys - 1 - c` (see `distance_table`); key j is at column Q - 1 - i + j,
    so row i is shifted left by Q - 1 - i. Reading the rows as one line with a column more does this without an index.
    Keys further right than the table reaches receive values that the caller's mask must hide.
    """
    batch, heads, queries, distances = scores.shape
    line = F.pad(scores, (1, 0)).view(batch, heads, distances + 1, queries)
    return line[:, :, 1:].reshape(batch, heads, queries, distances)[..., :num_keys]


class RelativeAttention(nn.Module):
    """Multi-head self-attention over D channels in H heads of K channels each."""

    def __init__(self, size: int, heads: int, dropout_rate: float) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = size // heads
        self.dropout_rate = dropout_rate
        self.linear_q = Linear(size, size)
        self.linear_k = Linear(size, size)
        self.linear_v = Linear(size, size)
        self.linear_out = Linear(size, size)
        self.linear_pos = Linear(size, size, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, self.head_size))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, self.head_size))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def project_distances(self, table: torch.Tensor) -> torch.Tensor:
        """`distance_table` [M, D] -> one key for each distance [H, M, K]."""
        keys: torch.Tensor = self.linear_pos(table)
        return keys.view(-1, self.heads, self.head_size).transpose(0, 1)

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query, key and value of each position: [..., D] -> three times [..., H, K]."""
        heads = (self.heads, self.head_size)
        return (
            torch.unflatten(self.linear_q(x), -1, heads),
            torch.unflatten(self.linear_k(x), -1, heads),
            torch.unflatten(self.linear_v(x), -1, heads),
        )

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        distance_keys: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Mixes the values: query [B, H, Q, K], key and value [B, H, S, K] -> [B, Q, D], before the output map.

        The queries are the last Q of the S positions. `distance_keys` [H, M, K] are the projected distances from S - 1
        down to 1 - Q, or down to 0 when `mask` is causal. `mask` is bool, broadcast to [B, H, Q, S], or None where
        every query sees every key.
        """
        scale = 1.0 / math.sqrt(self.head_size)
        by_distance = (
            scale * (query + self.pos_bias_v[:, None].to(query.dtype)) @ distance_keys.transpose(1, 2)
        )  # [B, H, Q, M]
        bias = align_distances(by_distance, key.size(2))  # [B, H, Q, S]
        if mask is not None:
            bias = bias.masked_fill(~mask, -math.inf)
        query = query + self.pos_bias_u[:, None].to(query.dtype)
        if self.training and self.dropout_rate > 0:
            scores = torch.softmax(scale * query @ key.transpose(2, 3) + bias, dim=3)
            mixed = dropout(scores, self.dropout_rate, True) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return mixed.transpose(1, 2).flatten(2)

    def attend_packed(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        distance_keys: torch.Tensor,
        mask: torch.Tensor,
        rows: Rows,
    ) -> torch.Tensor:
        """Mixes the values of sequences that lie end to end: three times [T, H, K] -> [T, D].

        `distance_keys` and `mask` are those of `attend` for `rows.width` positions; `mask` is [1 or N, 1, 1 or W, W].
        Each sequence is mixed in its own length, or all at once, as wide as the longest: what is faster here.
        """
        if rows.lengths is None or not attends_one_by_one(query):
            query, key, value = (rows.unpack(part).transpose(1, 2) for part in (query, key, value))
            return rows.pack(self.attend(query, key, value, distance_keys, mask))
        padding = query.size(0) - sum(rows.lengths)
        parts = [flat.transpose(0, 1).split([*rows.lengths, padding], dim=1) for flat in (query, key, value)]
        mixed = []
        for row, length in enumerate(rows.lengths):
            query, key, value = (part[row][None] for part in parts)  # [1, H, L, K]
            surplus = rows.width - length
            nearest = distance_keys.size(1) - (surplus if distance_keys.size(1) > rows.width else 0)
            seen = None if mask.size(2) == 1 else mask[row % mask.size(0), :, :length, :length]
            mixed.append(self.attend(query, key, value, distance_keys[:, surplus:nearest], seen)[0])
        return torch.cat((*mixed, query.new_zeros(padding, self.heads * self.head_size)))


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

    The input is a padded batch [B, T, D], or its valid frames [F, D] with `frames` giving where these lie.
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
        elif attends_one_by_one(query):
            mixed = self.mix_one_by_one(query, key, value, mask, frames)
        else:
            mixed = frames.pack(self.mix(frames.unpack(query), frames.unpack(key), frames.unpack(value), mask))
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
            # a mask of two dimensions: with three, torch takes a path that is three times as slow
            seen = None if mask.size(2) == 1 else mask[sequence, 0, : len(q), : len(q)]
            mixed.append(self.mix(q[None], k[None], v[None], seen)[0])
        return torch.cat(mixed)
