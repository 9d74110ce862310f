"""The Qwen2 decoder (https://arxiv.org/abs/2407.10671), on positions of several sequences end to end.

Weights are float32; activations have the type of the input, and each layer converts its weights to it. Attention is
causal: over sequences that lie end to end, or over a cache while decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from torch.utils.checkpoint import checkpoint

from cosyflow.backends import has_packed_kernel
from cosyflow.config.llm import Qwen2Config
from cosyflow.models.layers.basic import Linear


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
    if has_packed_kernel(cu_seqlens.device, dtype):
        return OneKernelAttention(cu_seqlens, max_seqlen)
    return SequenceBySequenceAttention(lengths)


@dataclass(frozen=True, eq=False)
class OneKernelAttention:
    """All sequences in one kernel."""

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


Rotation = tuple[Tensor, Tensor]
"""Cosines and sines [T, 1, D/2]."""


class RMSNorm(nn.Module):
    """Divides by the root mean square (https://arxiv.org/abs/1910.07467)."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, hidden: Tensor) -> Tensor:
        return F.rms_norm(hidden, self.weight.shape, self.weight.to(hidden.dtype), self.eps)


def rotation(position: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Rotation:
    """Angles of the rotary position embedding (https://arxiv.org/abs/2104.09864) for int64 [T] positions."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=position.device) / head_dim
    angle = position.float()[:, None] * (1.0 / theta**exponent)
    return angle.cos()[:, None].to(dtype), angle.sin()[:, None].to(dtype)


def rotate(heads: Tensor, angles: Rotation) -> Tensor:
    """Rotates [T, H, D]; element i is paired with element i + D/2."""
    cos, sin = angles
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Qwen2Attention(nn.Module):
    """Grouped-query attention with biased query, key and value projections."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        key_size = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, config.hidden_size)
        self.k_proj = Linear(config.hidden_size, key_size)
        self.v_proj = Linear(config.hidden_size, key_size)
        self.o_proj = Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, layer: int, hidden: Tensor, angles: Rotation, attention: CausalAttention) -> Tensor:
        # [T, hidden] -> [T, heads, D]
        query = rotate(self.q_proj(hidden).unflatten(-1, (-1, self.head_dim)), angles)
        key = rotate(self.k_proj(hidden).unflatten(-1, (-1, self.head_dim)), angles)
        value = self.v_proj(hidden).unflatten(-1, (-1, self.head_dim))
        output: Tensor = self.o_proj(attention(layer, query, key, value).flatten(1))
        return output


class Qwen2MLP(nn.Module):
    """SwiGLU (https://arxiv.org/abs/2002.05202)."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        output: Tensor = self.down_proj(F.silu(self.gate_proj(hidden)) * self.up_proj(hidden))
        return output


class Qwen2Layer(nn.Module):
    """Attention and MLP, each on normalised input and added to it."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.self_attn = Qwen2Attention(config)
        self.mlp = Qwen2MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, layer: int, hidden: Tensor, angles: Rotation, attention: CausalAttention) -> Tensor:
        hidden = hidden + self.self_attn(layer, self.input_layernorm(hidden), angles, attention)
        output: Tensor = hidden + self.mlp(self.post_attention_layernorm(hidden))
        return output


class Qwen2Decoder(nn.Module):
    """The text table, the layers and the final norm."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Qwen2Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self, hidden: Tensor, position: Tensor, attention: CausalAttention, checkpointing: bool = False
    ) -> Tensor:
        """Runs the layers.

        Args:
            hidden: [T, hidden_size] embeddings; their type is the type of all activations.
            position: int64 [T], position inside the sequence.
            attention: who sees whom.
            checkpointing: recompute each layer in the backward pass.

        Returns:
            [T, hidden_size], normalised.
        """
        angles = rotation(position, self.config.head_dim, self.config.rope_theta, hidden.dtype)
        for number, layer in enumerate(self.layers):
            if checkpointing:
                hidden = checkpoint(layer, number, hidden, angles, attention, use_reentrant=False)
            else:
                hidden = layer(number, hidden, angles, attention)
        output: Tensor = self.norm(hidden)
        return output


class Qwen2WithTextHead(nn.Module):
    """A decoder and its text head, whose weight is the text table. The head is stored for others, never multiplied."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.model = Qwen2Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False, device="meta")
        self.lm_head.weight = self.model.embed_tokens.weight
