"""The diffusion transformer that estimates the velocity of CosyVoice 3 (Peebles and Xie 2023, adaLN-zero blocks)."""

from __future__ import annotations

import torch
from torch import nn

from cosyflow.config.flow import DiTConfig
from cosyflow.models.layers.attention import FrameAttention
from cosyflow.models.layers.basic import CausalConv1d, Dropout, Linear, Mish, time_sinusoids
from cosyflow.models.layers.packing import Frames, attention_mask

TIME_SINUSOIDS = 256
POSITION_KERNEL = 31
POSITION_GROUPS = 16
ROTARY_BASE = 10000.0


class TimeEmbedding(nn.Module):
    """Time [B] -> [B, D]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.time_mlp = nn.Sequential(Linear(TIME_SINUSOIDS, size), nn.SiLU(), Linear(size, size))

    def forward(self, time: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.time_mlp(time_sinusoids(time, TIME_SINUSOIDS))
        return embedded


class PositionConvolution(nn.Module):
    """Two causal grouped convolutions that show a frame what precedes it: [B, T, D] -> [B, T, D]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(CausalConv1d(size, size, POSITION_KERNEL, groups=POSITION_GROUPS), Mish())
        self.conv2 = nn.Sequential(CausalConv1d(size, size, POSITION_KERNEL, groups=POSITION_GROUPS), Mish())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.conv2(self.conv1(x.transpose(1, 2)))
        return out.transpose(1, 2)


class InputEmbedding(nn.Module):
    """Noisy mel, known frames, mean and speaker, side by side, mapped to the width of the blocks."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.proj = Linear(2 * config.mel_dim + config.mu_dim + config.spk_dim, config.dim)
        self.conv_pos_embed = PositionConvolution(config.dim)

    def forward(self, x: torch.Tensor, cond: torch.Tensor, mu: torch.Tensor, spks: torch.Tensor) -> torch.Tensor:
        """x, cond, mu [B, T, 80], spks [B, 80] -> [B, T, D]"""
        speaker = spks[:, None].expand(-1, x.size(1), -1)
        embedded: torch.Tensor = self.proj(torch.cat((x, cond, mu, speaker), dim=2))
        added: torch.Tensor = embedded + self.conv_pos_embed(embedded)
        return added


class RotaryAngles(nn.Module):
    """Cosine and sine of the rotation of each frame."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inv_freq: torch.Tensor
        self.register_buffer("inv_freq", ROTARY_BASE ** (-torch.arange(0, size, 2).float() / size))

    def forward(self, length: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Twice [length, size / 2]."""
        frame = torch.arange(length, device=like.device, dtype=torch.float32)
        angle = frame[:, None] * self.inv_freq.float()
        return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


class Modulation(nn.Module):
    """Scales and shifts, made from the time, for a norm without parameters of its own."""

    def __init__(self, size: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = Linear(size, parts * size)

    def forward(self, time: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """time [B, D], after its SiLU -> `parts` times [B, 1, D]"""
        values: torch.Tensor = self.linear(time)
        return values[:, None].chunk(self.parts, dim=2)


class FeedForward(nn.Module):
    """Two linear maps with a GELU (tanh form) between them."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        hidden = config.dim * config.ff_mult
        widen = nn.Sequential(Linear(config.dim, hidden), nn.GELU(approximate="tanh"))
        self.ff = nn.Sequential(widen, Dropout(config.dropout), Linear(hidden, config.dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.ff(x)
        return out


class DiTBlock(nn.Module):
    """Attention and feed-forward, each normed, scaled and shifted before, gated after, and added to its input."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim, eps=1e-6, elementwise_affine=False)
        self.attn_norm = Modulation(config.dim, 6)
        self.attn = FrameAttention(config.dim, config.heads, config.dim_head, config.dropout, projection_bias=True)
        self.ff = FeedForward(config)

    def forward(
        self,
        x: torch.Tensor,
        time: torch.Tensor,
        seen: torch.Tensor,
        mask: torch.Tensor,
        frames: Frames | None,
        cosine: torch.Tensor,
        sine: torch.Tensor,
    ) -> torch.Tensor:
        """One block.

        Args:
            x: [B, T, D]
            time: [B, D]
            seen: bool [B, 1, 1 or T, T], the attention mask.
            mask: [B, T, 1], 0 at padding.
            frames: where the valid frames lie, or None to compute padding too.
            cosine, sine: of each frame that is computed.

        Returns:
            [B, T, D]
        """
        shift, scale, gate, ff_shift, ff_scale, ff_gate = self.attn_norm(time)
        hidden = self.norm(x) * (1 + scale) + shift
        if frames is None:
            mixed = self.attn.forward_rotated(hidden, seen, None, cosine, sine) * mask
        else:
            mixed = frames.unpack(self.attn.forward_rotated(frames.pack(hidden), seen, frames, cosine, sine))
        x = x + gate * mixed
        hidden = self.norm(x) * (1 + ff_scale) + ff_shift
        widened = self.ff(hidden) if frames is None else frames.unpack(self.ff(frames.pack(hidden)))
        added: torch.Tensor = x + ff_gate * widened
        return added


class FinalNorm(nn.Module):
    """The last norm, scaled and shifted by the time."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size, eps=1e-6, elementwise_affine=False)
        self.linear = Linear(size, 2 * size)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """x [B, T, D], time [B, D] after its SiLU -> [B, T, D]"""
        scale, shift = self.linear(time)[:, None].chunk(2, dim=2)
        out: torch.Tensor = self.norm(x) * (1 + scale) + shift
        return out


class DiT(nn.Module):
    """Velocity of the flow from noise to mel."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.chunk_size = config.static_chunk_size
        self.time_embed = TimeEmbedding(config.dim)
        self.input_embed = InputEmbedding(config)
        self.rotary_embed = RotaryAngles(config.dim_head)
        self.transformer_blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.depth))
        self.norm_out = FinalNorm(config.dim)
        self.proj_out = Linear(config.dim, config.mel_dim)

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
        """The velocity at time t; arguments and result are those of `UNet.forward`, but padding is not zeroed."""
        time = nn.functional.silu(self.time_embed(t))
        x = self.input_embed(x.transpose(1, 2), cond.transpose(1, 2), mu.transpose(1, 2), spks)
        cosine, sine = self.rotary_embed(x.size(1), x)
        seen = attention_mask(mask[:, 0] > 0, self.chunk_size if streaming else 0)
        if frames is not None:
            cosine, sine = cosine[frames.position], sine[frames.position]
        for block in self.transformer_blocks:
            x = block(x, time, seen, mask.transpose(1, 2), frames, cosine, sine)
        velocity: torch.Tensor = self.proj_out(self.norm_out(x, time))
        return velocity.transpose(1, 2)
