"""Stacks of self-attention layers with relative positions, for padded batches, packed batches and cached decoding."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from cosyflow.config.transformer import EncoderConfig
from cosyflow.models.layers.attention import RelativeAttention, distance_table
from cosyflow.models.layers.basic import Dropout, LayerNorm, Linear
from cosyflow.models.layers.packing import Rows, attention_mask, chunk_mask

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "swish": nn.SiLU}


class FeedForward(nn.Module):
    """Two linear maps with an activation between them, for each position by itself."""

    def __init__(self, size: int, hidden_size: int, dropout_rate: float, activation: str) -> None:
        super().__init__()
        self.w_1 = Linear(size, hidden_size)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = Dropout(dropout_rate)
        self.w_2 = Linear(hidden_size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., D] -> [..., D]"""
        hidden: torch.Tensor = self.activation(self.w_1(x))
        out: torch.Tensor = self.w_2(self.dropout(hidden))
        return out


class InputEmbedding(nn.Module):
    """Maps the input to the width of the layers and scales it by the root of that width."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size = config.output_size
        self.out = nn.Sequential(
            Linear(config.input_size, size), LayerNorm(size, eps=1e-5), Dropout(config.dropout_rate)
        )
        if config.input_layer == "linear_legacy":
            self.out.append(nn.ReLU())
        self.scale = math.sqrt(size)
        self.dropout = Dropout(config.positional_dropout_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., input_size] -> [..., D]"""
        embedded: torch.Tensor = self.dropout(self.out(x) * self.scale)
        return embedded


class EncoderLayer(nn.Module, ABC):
    """Attention and feed-forward, each after a norm and added to its input."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size = config.output_size
        self.self_attn = RelativeAttention(size, config.attention_heads, config.attention_dropout_rate)
        self.feed_forward = FeedForward(size, config.linear_units, config.dropout_rate, config.activation_type)
        self.dropout = Dropout(config.dropout_rate)

    @abstractmethod
    def attention_norm(self, x: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def feed_forward_norm(self, x: torch.Tensor) -> torch.Tensor: ...

    def forward(self, x: torch.Tensor, table: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Whole sequences: x [B, T, D] -> [B, T, D].

        `table` is the `distance_table` from T - 1 down to 1 - T; `mask` is bool, broadcast to [B, H, T, T].
        """
        attention = self.self_attn
        query, key, value = attention.project(self.attention_norm(x))
        distance_keys = attention.project_distances(table)
        mixed = attention.attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), distance_keys, mask)
        return self.add(x, attention.linear_out(mixed))

    def forward_cached(
        self, x: torch.Tensor, distance_keys: torch.Tensor, mask: torch.Tensor, cache: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The next Q positions of sequences: x [B, Q, D] -> ([B, Q, D], cache with these positions).

        `cache` [B, H, C, 2K] holds keys and values of the C positions before x; C may be 0. `distance_keys` and `mask`
        are those of `RelativeAttention.attend`, for C + Q keys.
        """
        attention = self.self_attn
        query, key, value = attention.project(self.attention_norm(x))
        cache = torch.cat((cache, torch.cat((key, value), dim=3).transpose(1, 2)), dim=2)
        key, value = cache.chunk(2, dim=3)
        mixed = attention.attend(query.transpose(1, 2), key, value, distance_keys, mask)
        return self.add(x, attention.linear_out(mixed)), cache

    def forward_packed(self, x: torch.Tensor, table: torch.Tensor, mask: torch.Tensor, rows: Rows) -> torch.Tensor:
        """x [T, D] -> [T, D]: everything but the attention itself runs on the flat tokens."""
        attention = self.self_attn
        query, key, value = attention.project(self.attention_norm(x))
        mixed = attention.attend_packed(query, key, value, attention.project_distances(table), mask, rows)
        return self.add(x, attention.linear_out(mixed))

    def add(self, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Adds what attention has mixed, then what the feed-forward part makes of the sum: [..., D]."""
        x = x + self.dropout(mixed)
        added: torch.Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return added


class ConformerLayer(EncoderLayer):
    """A layer with the norm names of the official conformer, which is used without its convolution."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.norm_ff = LayerNorm(config.output_size, eps=1e-12)
        self.norm_mha = LayerNorm(config.output_size, eps=1e-12)

    def attention_norm(self, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm_mha(x)
        return normed

    def feed_forward_norm(self, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm_ff(x)
        return normed


class TransformerLayer(EncoderLayer):
    """A layer with the norm names of the official transformer."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.norm1 = LayerNorm(config.output_size, eps=1e-12)
        self.norm2 = LayerNorm(config.output_size, eps=1e-12)

    def attention_norm(self, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm1(x)
        return normed

    def feed_forward_norm(self, x: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm2(x)
        return normed


LAYERS: dict[str, type[EncoderLayer]] = {"conformer": ConformerLayer, "transformer": TransformerLayer}


class Encoder(nn.Module):
    """Input map, layers, final norm: text encoder, language model and flow encoder of CosyVoice 1."""

    def __init__(self, config: EncoderConfig, checkpoint_activations: bool = False) -> None:
        super().__init__()
        self.chunk_size = config.static_chunk_size
        self.checkpoint_activations = checkpoint_activations
        self.embed = InputEmbedding(config)
        self.after_norm = LayerNorm(config.output_size, eps=1e-5)
        self.encoders = nn.ModuleList(LAYERS[config.layer](config) for _ in range(config.num_blocks))

    def layers(self) -> Iterator[EncoderLayer]:
        yield from cast("Iterable[EncoderLayer]", self.encoders)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """x [B, T, input_size], valid bool [B, T] -> [B, T, D]"""
        x = self.embed(x)
        table = self.embed.dropout(distance_table(x.size(1) - 1, 1 - x.size(1), x.size(2), x))
        mask = attention_mask(valid, self.chunk_size)
        for layer in self.encoders:
            x = layer(x, table, mask)
        encoded: torch.Tensor = self.after_norm(x)
        return encoded

    def forward_packed(self, x: torch.Tensor, rows: Rows) -> torch.Tensor:
        """x [T, input_size] of sequences end to end, laid out by `rows` -> [T, D]. Only for a causal encoder."""
        if self.chunk_size != 1:
            raise ValueError(f"static_chunk_size: packed sequences need a causal encoder (1), not {self.chunk_size}")
        x = self.embed(x)
        table = self.embed.dropout(distance_table(rows.width - 1, 0, x.size(1), x))
        mask = chunk_mask(rows.width, 1, x.device)[None, None]
        for layer in self.layers():
            if self.checkpoint_activations and self.training:
                x = checkpoint(layer.forward_packed, x, table, mask, rows, use_reentrant=False)
            else:
                x = layer.forward_packed(x, table, mask, rows)
        encoded: torch.Tensor = self.after_norm(x)
        return encoded


_FIRST_CAPACITY = 256


class GrowingSequence:
    """Keeps keys and values of what was read, and the projected distances, which would cost more than all the rest.

    Room for distances doubles as the sequence grows, so that no length is too long.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._caches: list[torch.Tensor] = []
        self._distance_keys: list[torch.Tensor] = []
        self._capacity = 0
        self._length = 0

    def append(self, x: torch.Tensor) -> torch.Tensor:
        """The next Q positions, [1, Q, input_size] -> their encoding [1, Q, D]."""
        x = self._encoder.embed(x)
        if not self._caches:
            self._caches = [
                x.new_zeros(1, layer.self_attn.heads, 0, 2 * layer.self_attn.head_size)
                for layer in self._encoder.layers()
            ]
        before, self._length = self._length, self._length + x.size(1)
        if self._length > self._capacity:
            self._make_room(x)
        mask = torch.ones(x.size(1), self._length, dtype=torch.bool, device=x.device).tril(before)
        for number, layer in enumerate(self._encoder.layers()):
            distance_keys = self._distance_keys[number][:, self._capacity - self._length :]
            x, self._caches[number] = layer.forward_cached(x, distance_keys, mask, self._caches[number])
        encoded: torch.Tensor = self._encoder.after_norm(x)
        return encoded

    def _make_room(self, like: torch.Tensor) -> None:
        self._capacity = max(_FIRST_CAPACITY, 2 * self._length)
        table = distance_table(self._capacity - 1, 0, like.size(2), like)
        self._distance_keys = [layer.self_attn.project_distances(table) for layer in self._encoder.layers()]
