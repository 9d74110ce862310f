"""Self-attention with relative positions (Dai et al. 2019, Transformer-XL, section 3.3 and appendix B).

The score of query i and key j is `(q_i + u) . k_j + (q_i + v) . W p(i - j)`, where `p` is a sinusoid of the distance
and `u`, `v` are learned. Distances are computed for the length at hand, so that no length is too long.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from cosyflow.models.layers.dropout import dropout
from cosyflow.models.layers.linear import Linear
from cosyflow.models.layers.packing import Rows


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
        On the CPU each sequence is mixed in its own length; elsewhere all at once, as wide as the longest.
        """
        if rows.lengths is None or query.is_cuda:
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
