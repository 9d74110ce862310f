"""The token encoder of CosyVoice 2: lookahead, conformer layers, upsampling, conformer layers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from cosyflow.config.flow import UpsampleEncoderConfig
from cosyflow.models.flow.frames import Frames
from cosyflow.models.layers.convolution import Lookahead, Upsample
from cosyflow.models.layers.encoder import LAYERS, EncoderLayer, InputEmbedding
from cosyflow.models.layers.linear import LayerNorm
from cosyflow.models.layers.masks import attention_mask, valid_mask
from cosyflow.models.layers.relative_attention import distance_table


class UpsampleEncoder(nn.Module):
    """Speech-token embeddings at 25 Hz -> frame features at 50 Hz."""

    def __init__(self, config: UpsampleEncoderConfig) -> None:
        super().__init__()
        layers = config.layers
        layer = LAYERS[layers.layer]
        self.chunk_size = layers.static_chunk_size
        self.factor = config.upsample_factor
        self.embed = InputEmbedding(layers)
        self.after_norm = LayerNorm(layers.output_size, eps=1e-5)
        self.pre_lookahead_layer = Lookahead(
            layers.output_size, config.pre_lookahead_channels, config.pre_lookahead_len
        )
        self.encoders = nn.ModuleList(layer(layers) for _ in range(layers.num_blocks))
        self.up_layer = Upsample(layers.output_size, config.upsample_factor)
        self.up_embed = InputEmbedding(layers)
        self.up_encoders = nn.ModuleList(layer(layers) for _ in range(config.num_up_blocks))

    def forward(
        self, x: torch.Tensor, valid: torch.Tensor, streaming: bool = False, lookahead_only: int = 0
    ) -> torch.Tensor:
        """Encodes tokens, whole or the first part of an utterance.

        Args:
            x: [B, T, input_size]
            valid: bool [B, T], False at padding.
            streaming: attention by chunks.
            lookahead_only: so many last tokens are seen by the lookahead and dropped after it.

        Returns:
            [B, (T - lookahead_only) * factor, D]
        """
        x = self.pre_lookahead_layer(self.embed(x))
        x, valid = x[:, : x.size(1) - lookahead_only], valid[:, : valid.size(1) - lookahead_only]
        chunk_size = self.chunk_size if streaming else 0
        table = self.embed.dropout(distance_table(x.size(1) - 1, 1 - x.size(1), x.size(2), x))
        mask = attention_mask(valid, chunk_size)
        for layer in self.encoders:
            x = layer(x, table, mask)

        x = self.up_embed(self.up_layer(x))
        table = self.up_embed.dropout(distance_table(x.size(1) - 1, 1 - x.size(1), x.size(2), x))
        mask = attention_mask(valid.repeat_interleave(self.factor, dim=1), chunk_size * self.factor)
        for layer in self.up_encoders:
            x = layer(x, table, mask)
        encoded: torch.Tensor = self.after_norm(x)
        return encoded

    def forward_packed(self, x: torch.Tensor, tokens: Frames, streaming: bool) -> torch.Tensor:
        """Encodes padded utterances, without the padding where that is possible.

        Args:
            x: [B, T, input_size]
            tokens: where the valid tokens lie.
            streaming: attention by chunks.

        Returns:
            [B, T * factor, D], zero at padding.
        """
        chunk_size = self.chunk_size if streaming else 0
        x = self.pre_lookahead_layer(self.embed(x))  # the official lookahead sees the embedded padding
        x = tokens.unpack(self.run_packed(self.encoders, x, tokens, chunk_size, self.embed.dropout))
        frames = tokens.repeated(self.factor)
        x = self.up_embed(self.up_layer(x))
        x = self.run_packed(self.up_encoders, x, frames, chunk_size * self.factor, self.up_embed.dropout)
        return frames.unpack(self.after_norm(x))

    @staticmethod
    def run_packed(
        layers: nn.ModuleList, x: torch.Tensor, frames: Frames, chunk_size: int, dropout: nn.Module
    ) -> torch.Tensor:
        """Runs x [B, T, D] through the layers -> [F, D]."""
        width = x.size(1)
        table = dropout(distance_table(width - 1, 1 - width, x.size(2), x))
        mask = attention_mask(valid_mask(frames.length, width), chunk_size)
        x = frames.pack(x)
        for layer in cast("Iterable[EncoderLayer]", layers):
            x = layer.forward_packed(x, table, mask, frames.rows)
        return x
