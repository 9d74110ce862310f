"""The U-Net that estimates the velocity of CosyVoice 1 (two levels) and CosyVoice 2 (one level, causal)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from cosyflow.config.flow import UNetConfig
from cosyflow.models.layers.attention import FrameAttention
from cosyflow.models.layers.basic import CausalConv1d, Dropout, Linear, Mish, time_sinusoids
from cosyflow.models.layers.packing import Frames, attention_mask

GROUPS = 8
"""Groups of the group norms."""


class TimeMLP(nn.Module):
    """Sinusoids of time -> the vector that each residual block receives."""

    def __init__(self, size: int, hidden_size: int) -> None:
        super().__init__()
        self.size = size
        self.linear_1 = Linear(size, hidden_size)
        self.act = nn.SiLU()
        self.linear_2 = Linear(hidden_size, hidden_size)

    def forward(self, time: torch.Tensor) -> torch.Tensor:
        """[B] -> [B, hidden_size]"""
        embedded: torch.Tensor = self.linear_2(self.act(self.linear_1(time_sinusoids(time, self.size))))
        return embedded


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of [B, C, T]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class ConvBlock(nn.Module):
    """Convolution of three frames, norm, Mish; the causal one norms each frame by itself."""

    def __init__(self, in_channels: int, out_channels: int, causal: bool) -> None:
        super().__init__()
        # the names are the positions that the official checkpoints have
        if causal:
            parts = {"0": CausalConv1d(in_channels, out_channels, 3), "2": ChannelNorm(out_channels), "4": Mish()}
        else:
            convolution = nn.Conv1d(in_channels, out_channels, 3, padding=1)
            parts = {"0": convolution, "1": nn.GroupNorm(GROUPS, out_channels), "2": Mish()}
        self.block = nn.Sequential(OrderedDict(parts))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """x [B, C, T], mask [B, 1, T] -> [B, C', T], zero at padding."""
        out: torch.Tensor = self.block(x * mask)
        return out * mask


class ResidualBlock(nn.Module):
    """Two convolution blocks with the time added between them, and a way around them."""

    def __init__(self, in_channels: int, out_channels: int, time_size: int, causal: bool) -> None:
        super().__init__()
        self.mlp = nn.Sequential(Mish(), Linear(time_size, out_channels))
        self.block1 = ConvBlock(in_channels, out_channels, causal)
        self.block2 = ConvBlock(out_channels, out_channels, causal)
        self.res_conv = nn.Conv1d(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """x [B, C, T], mask [B, 1, T], time [B, time_size] -> [B, C', T]"""
        hidden = self.block1(x, mask) + self.mlp(time)[:, :, None]
        added: torch.Tensor = self.block2(hidden, mask) + self.res_conv(x * mask)
        return added


class Projection(nn.Module):
    """A linear map and a GELU."""

    def __init__(self, size: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = Linear(size, hidden_size)
        self.act = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.act(self.proj(x))
        return hidden


class FeedForward(nn.Module):
    """Four times as wide inside."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(Projection(size, 4 * size), Dropout(dropout), Linear(4 * size, size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.net(x)
        return out


class TransformerBlock(nn.Module):
    """Self-attention and feed-forward, each after a norm and added to its input."""

    def __init__(self, size: int, config: UNetConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size)
        self.attn1 = FrameAttention(
            size, config.num_heads, config.attention_head_dim, config.dropout, projection_bias=False
        )
        self.norm3 = nn.LayerNorm(size)
        self.ff = FeedForward(size, config.dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, frames: Frames | None) -> torch.Tensor:
        """[B, T, C], or [F, C] with `frames` -> the same shape."""
        x = x + self.attn1(self.norm1(x), mask, frames)
        added: torch.Tensor = x + self.ff(self.norm3(x))
        return added


class Downsample(nn.Module):
    """Halves the frames: [B, C, T] -> [B, C, ceil(T / 2)]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Doubles the frames: [B, C, T] -> [B, C, 2 T]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(channels, channels, 4, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv(x)
        return out


@dataclass(frozen=True)
class Level:
    """What all blocks of a level share."""

    mask: torch.Tensor
    """[B, 1, T]"""
    seen: torch.Tensor
    """bool, the attention mask."""
    frames: Frames | None

    def mix(self, residual: nn.Module, blocks: nn.Module, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """One residual block and its transformer blocks: x [B, C, T] -> [B, C', T]."""
        x = residual(x, self.mask, time).transpose(1, 2)  # [B, T, C']
        if self.frames is not None:
            x = self.frames.pack(x)  # [F, C']
        for block in cast("Iterable[nn.Module]", blocks):
            x = block(x, self.seen, self.frames)
        if self.frames is not None:
            x = self.frames.unpack(x)
        return x.transpose(1, 2)


class UNet(nn.Module):
    """Velocity of the flow from noise to mel.

    Levels go down to fewer frames and up again; what each level had on the way down is concatenated to what comes up.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.chunk_size = config.static_chunk_size
        time_size = 4 * config.channels[0]
        self.time_mlp = TimeMLP(config.in_channels, time_size)

        def stage(in_channels: int, out_channels: int, *after: nn.Module) -> nn.ModuleList:
            blocks = nn.ModuleList(TransformerBlock(out_channels, config) for _ in range(config.n_blocks))
            residual = ResidualBlock(in_channels, out_channels, time_size, config.causal)
            return nn.ModuleList([residual, blocks, *after])

        def last_convolution(channels: int) -> nn.Module:
            return CausalConv1d(channels, channels, 3) if config.causal else nn.Conv1d(channels, channels, 3, padding=1)

        channels = config.channels
        bottom = channels[-1]
        self.down_blocks = nn.ModuleList()
        for level, (above, here) in enumerate(zip((config.in_channels, *channels), channels, strict=False)):
            is_bottom = level == len(channels) - 1
            self.down_blocks.append(stage(above, here, last_convolution(here) if is_bottom else Downsample(here)))
        self.mid_blocks = nn.ModuleList(stage(bottom, bottom) for _ in range(config.num_mid_blocks))
        self.up_blocks = nn.ModuleList()
        upwards = channels[::-1]
        for level, (below, here) in enumerate(zip(upwards, (*upwards[1:], channels[0]), strict=True)):
            is_top = level == len(channels) - 1
            self.up_blocks.append(stage(2 * below, here, last_convolution(here) if is_top else Upsample(here)))
        self.final_block = ConvBlock(channels[0], channels[0], config.causal)
        self.final_proj = nn.Conv1d(channels[0], config.out_channels, 1)
        self.initialize()

    def initialize(self) -> None:
        """He's normal initialisation of all linear maps and convolutions, biases zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def levels(self, mask: torch.Tensor, chunk_size: int, frames: Frames | None) -> list[Level]:
        """The levels from top to bottom, each with every second frame of the one above; mask [B, 1, T]."""
        levels = [Level(mask, attention_mask(mask[:, 0] > 0, chunk_size), frames)]
        while len(levels) < len(self.down_blocks):
            mask = mask[:, :, ::2]
            frames = None if frames is None else frames.halved()
            levels.append(Level(mask, attention_mask(mask[:, 0] > 0, chunk_size), frames))
        return levels

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor,
        mu: torch.Tensor,
        t: torch.Tensor,
        spks: torch.Tensor,
        cond: torch.Tensor,
        streaming: bool = False,
        frames: Frames | None = None,
    ) -> torch.Tensor:
        """The velocity at time t.

        Args:
            x: [B, 80, T], a point on the path.
            mask: [B, 1, T], 1 at frames, 0 at padding.
            mu: [B, 80, T], the encoder's output.
            t: [B], in [0, 1].
            spks: [B, 80], projected speaker embedding.
            cond: [B, 80, T], the frames that are known, elsewhere 0.
            streaming: attention by chunks.
            frames: where the valid frames lie; with it, padding costs nothing in the transformer blocks.

        Returns:
            [B, 80, T], zero at padding.
        """
        time = self.time_mlp(t)
        x = torch.cat((x, mu, spks[:, :, None].expand(-1, -1, x.size(2)), cond), dim=1)

        levels = self.levels(mask, self.chunk_size if streaming else 0, frames)
        skipped: list[torch.Tensor] = []
        for level, stage in zip(levels, self.down_blocks, strict=True):
            residual, blocks, down = cast("Iterable[nn.Module]", stage)
            x = level.mix(residual, blocks, x, time)
            skipped.append(x)
            x = down(x * level.mask)
        for stage in self.mid_blocks:
            residual, blocks = cast("Iterable[nn.Module]", stage)
            x = levels[-1].mix(residual, blocks, x, time)
        for level, stage in zip(reversed(levels), self.up_blocks, strict=True):
            residual, blocks, up = cast("Iterable[nn.Module]", stage)
            skip = skipped.pop()
            x = torch.cat((x[:, :, : skip.size(2)], skip), dim=1)
            x = level.mix(residual, blocks, x, time)
            x = up(x * level.mask)
        velocity: torch.Tensor = self.final_proj(self.final_block(x, mask))
        return velocity * mask
