"""From speech tokens to features at the rate of mel frames: the upsampling encoder of CosyVoice 2 (lookahead,
conformer layers, upsampling, conformer layers), the lookahead of CosyVoice 3, and the interpolation of CosyVoice 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from cosyflow.config.flow import UpsampleEncoderConfig
from cosyflow.models.layers.attention import distance_table
from cosyflow.models.layers.basic import CausalConv1d, LayerNorm, Mish
from cosyflow.models.layers.encoder import LAYERS, EncoderLayer, InputEmbedding
from cosyflow.models.layers.packing import Frames, attention_mask, valid_mask


class Lookahead(nn.Module):
    """Mixes each position with a few to its right and two to its left, and adds the result to it."""

    def __init__(self, size: int, hidden_size: int, positions: int) -> None:
        super().__init__()
        self.positions = positions
        self.conv1 = nn.Conv1d(size, hidden_size, positions + 1)
        self.conv2 = CausalConv1d(hidden_size, size, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, D] -> [B, T, D], zeros being to the right of the last position."""
        right = F.pad(x.transpose(1, 2), (0, self.positions))
        mixed: torch.Tensor = self.conv2(F.leaky_relu(self.conv1(right)))
        return x + mixed.transpose(1, 2)


class Upsample(nn.Module):
    """Repeats each position and smooths with a causal convolution."""

    def __init__(self, size: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = CausalConv1d(size, size, 2 * factor + 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, D] -> [B, T * factor, D]"""
        repeated = x.repeat_interleave(self.factor, dim=1)
        smooth: torch.Tensor = self.conv(repeated.transpose(1, 2))
        return smooth.transpose(1, 2)


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
            lookahead_only: number of last tokens that only the lookahead sees.

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
