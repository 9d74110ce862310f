"""Causal attention over sequences that lie end to end, and over a cache while decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn


class CausalAttention(Protocol):
    """Decides which earlier positions a query sees; a decoder calls it once a layer."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attends in one layer: query [T, H, D], key and value [T, G, D] with G dividing H, result [T, H, D]."""
        ...


def repeat_heads(tensor: Tensor, times: int) -> Tensor:
    """[T, G, D] -> [T, G * times, D]: each key or value head once for every query head that it serves."""
    T, G, D = tensor.shape
    return tensor.unsqueeze(2).expand(T, G, times, D).reshape(T, G * times, D)


def packed_attention(
    cu_seqlens: Tensor, max_seqlen: int, lengths: Sequence[int], dtype: torch.dtype
) -> CausalAttention:
    """Each position sees itself and what comes before it in its own sequence.

    Args:
        cu_seqlens: int32 [C+1], where each sequence begins; equal neighbours are empty sequences.
        max_seqlen: no sequence is longer.
        lengths: of the sequences that matter, which come first, on the host; the others may get any finite output.
        dtype: of the queries.
    """
    if cu_seqlens.is_cuda and dtype in (torch.bfloat16, torch.float16):
        return OneKernelAttention(cu_seqlens, max_seqlen)
    return SequenceBySequenceAttention(lengths)


@dataclass(frozen=True, eq=False)
class OneKernelAttention:
    """All sequences in one kernel, which exists on CUDA and in half precision."""

    cu_seqlens: Tensor
    max_seqlen: int

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        times = query.shape[1] // key.shape[1]
        key, value = repeat_heads(key, times), repeat_heads(value, times)
        ends, longest = self.cu_seqlens, self.max_seqlen
        return cast(Tensor, varlen_attn(query, key, value, ends, ends, longest, longest, window_size=(-1, 0)))


@dataclass(frozen=True, eq=False)
class SequenceBySequenceAttention:
    """One call of scaled dot product attention for each sequence; zero after the last."""

    lengths: Sequence[int]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        times = query.shape[1] // key.shape[1]
        padding = query.shape[0] - sum(self.lengths)
        sizes = [*self.lengths, padding]
        parts = (query, repeat_heads(key, times), repeat_heads(value, times))
        sequences = list(zip(*(torch.split(part, sizes) for part in parts), strict=True))[:-1]
        outputs = [
            # [L, H, D] -> [1, H, L, D] and back
            F.scaled_dot_product_attention(
                q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None], is_causal=True
            )[0].transpose(0, 1)
            for q, k, v in sequences
        ]
        return torch.cat([*outputs, query.new_zeros(padding, *query.shape[1:])])


class CachedAttention:
    """Attention of one growing sequence: remembers the keys and values of what it has seen."""

    def __init__(self) -> None:
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    @property
    def length(self) -> int:
        """Positions seen so far."""
        return self._keys[-1].shape[0] if self._keys else 0

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if layer < len(self._keys):
            key = self._keys[layer] = torch.cat([self._keys[layer], key])
            value = self._values[layer] = torch.cat([self._values[layer], value])
        else:
            self._keys.append(key)
            self._values.append(value)
        times = query.shape[1] // key.shape[1]
        new, seen = query.shape[0], key.shape[0]
        visible = torch.ones(new, seen, dtype=torch.bool, device=query.device).tril(seen - new)
        key, value = repeat_heads(key, times), repeat_heads(value, times)
        output = F.scaled_dot_product_attention(
            query.transpose(0, 1)[None], key.transpose(0, 1)[None], value.transpose(0, 1)[None], attn_mask=visible
        )
        return output[0].transpose(0, 1)
