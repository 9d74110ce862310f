"""Settings of the flow-matching models, which turn speech tokens into mel spectrograms.

The defaults are the sizes of the released models; names are those of the official yaml files where these have one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from cosyflow.config.transformer import EncoderConfig


@dataclass(frozen=True)
class MatchingConfig:
    """Conditional flow matching: how it is trained and how its differential equation is solved."""

    sigma_min: float = 1e-6
    """Width of the distribution at the end of the path."""
    training_cfg_rate: float = 0.2
    """Share of utterances that are trained without any condition."""
    inference_cfg_rate: float = 0.7
    """Weight g of classifier-free guidance: (1 + g) conditional - g unconditional."""
    n_timesteps: int = 10
    """Euler steps."""

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_min < 1:
            raise ValueError(f"sigma_min: {self.sigma_min} is not in [0, 1)")
        if not 0 <= self.training_cfg_rate < 1:
            raise ValueError(f"training_cfg_rate: {self.training_cfg_rate} is not in [0, 1)")
        if self.inference_cfg_rate < 0:
            raise ValueError(f"inference_cfg_rate: {self.inference_cfg_rate} is negative")
        if self.n_timesteps < 1:
            raise ValueError(f"n_timesteps: {self.n_timesteps} is not positive")


@dataclass(frozen=True)
class UNetConfig:
    """A one-dimensional U-Net over mel frames with self-attention at each level."""

    in_channels: int = 320
    """Noisy mel, mean, speaker and known mel frames, one above the other."""
    out_channels: int = 80
    channels: tuple[int, ...] = (256, 256)
    """Channels of each level; every further level has half the frames."""
    dropout: float = 0.0
    attention_head_dim: int = 64
    n_blocks: int = 4
    """Transformer blocks after each convolution block."""
    num_mid_blocks: int = 12
    num_heads: int = 8
    causal: bool = False
    """Convolutions that look to the left only, and attention by chunks when streaming."""
    static_chunk_size: int = 0
    """Frames of a chunk of a causal U-Net."""

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels: {self.channels} has no positive number of channels for each level")
        if self.causal and len(self.channels) != 1:
            raise ValueError(f"channels: a causal U-Net has one level, not {len(self.channels)}")
        if self.causal and self.static_chunk_size < 1:
            raise ValueError(f"static_chunk_size: {self.static_chunk_size} is not positive, as a causal U-Net needs")
        if not self.causal and any(size % 8 for size in self.channels):
            raise ValueError(f"channels: {self.channels} are not multiples of the 8 groups of a group norm")


@dataclass(frozen=True)
class DiTConfig:
    """A diffusion transformer over mel frames."""

    dim: int = 1024
    depth: int = 22
    heads: int = 16
    dim_head: int = 64
    ff_mult: int = 2
    """Width of the feed-forward part as a multiple of `dim`."""
    dropout: float = 0.1
    mel_dim: int = 80
    mu_dim: int = 80
    spk_dim: int = 80
    static_chunk_size: int = 50
    """Frames of a chunk when streaming."""

    def __post_init__(self) -> None:
        if self.dim_head % 2:
            raise ValueError(f"dim_head: {self.dim_head} is odd, a rotary embedding needs pairs")
        if self.dim % 16:
            raise ValueError(f"dim: {self.dim} is not a multiple of the 16 groups of the position convolution")
        if self.static_chunk_size < 1:
            raise ValueError(f"static_chunk_size: {self.static_chunk_size} is not positive")


@dataclass(frozen=True)
class UpsampleEncoderConfig:
    """The token encoder of CosyVoice 2: conformer layers at the token rate, then at twice that rate."""

    layers: EncoderConfig = field(
        default_factory=lambda: EncoderConfig(attention_dropout_rate=0.1, static_chunk_size=25)
    )
    """The layers of both rates. `num_blocks` counts the first; `static_chunk_size` (tokens) is for streaming only."""
    num_up_blocks: int = 4
    pre_lookahead_len: int = 3
    """Tokens to the right that the first convolution sees."""
    pre_lookahead_channels: int = 512
    upsample_factor: int = 2
    """Frames of a token."""

    def __post_init__(self) -> None:
        if self.layers.input_size != self.layers.output_size:
            raise ValueError(
                f"layers.input_size: {self.layers.input_size} is not output_size {self.layers.output_size}, but the"
                " layers at the frame rate read what those at the token rate write"
            )
        if self.layers.static_chunk_size < 1:
            raise ValueError("layers.static_chunk_size: 0 leaves nothing to stream by; give the tokens of a chunk")


@dataclass(frozen=True)
class FlowConfig(ABC):
    """What the three versions share."""

    vocab_size: int = 6561
    """Number of speech tokens."""
    output_size: int = 80
    """Mel channels."""
    spk_embed_dim: int = 192
    """Length of the speaker embedding."""
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    prompt_rate: float = 0.5
    """Share of training utterances that are given their first frames."""
    longest_prompt: float = 0.3
    """Those first frames are at most this share of the utterance."""
    streaming_rate: float = 0.5
    """Share of training batches whose attention is by chunks."""

    frame_tolerance: ClassVar[int] = 0
    """Number of frames by which a mel spectrogram may be longer or shorter than its tokens say."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "output_size", "spk_embed_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive")
        for name in ("prompt_rate", "longest_prompt", "streaming_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not in [0, 1]")

    @abstractmethod
    def mel_frames(self, tokens: int) -> int:
        """Mel frames of an utterance with this number of speech tokens."""


def _check_unet(config: UNetConfig, mel_channels: int) -> None:
    if config.out_channels != mel_channels:
        raise ValueError(f"estimator.out_channels: {config.out_channels} is not the {mel_channels} mel channels")
    if config.in_channels != 4 * mel_channels:
        raise ValueError(
            f"estimator.in_channels: {config.in_channels} is not four times the {mel_channels} mel channels"
        )


@dataclass(frozen=True)
class CosyVoice1FlowConfig(FlowConfig):
    """CosyVoice 1: conformer encoder, linear interpolation from token rate to frame rate, U-Net."""

    vocab_size: int = 4096
    input_frame_rate: int = 50
    """Speech tokens a second."""
    sample_rate: int = 22050
    """Samples a second of the audio behind the mel spectrogram."""
    hop_size: int = 256
    """Samples from one mel frame to the next."""
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(attention_dropout_rate=0.1))
    regulator_layers: int = 4
    """Convolutions after the interpolation."""
    estimator: UNetConfig = field(default_factory=UNetConfig)
    streaming_rate: float = 0.0
    """CosyVoice 1 has no attention by chunks."""

    frame_tolerance: ClassVar[int] = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_unet(self.estimator, self.output_size)
        if self.estimator.causal:
            raise ValueError("estimator.causal: CosyVoice 1 has a U-Net that is not causal")
        if self.streaming_rate:
            raise ValueError(f"streaming_rate: {self.streaming_rate}, but CosyVoice 1 has no attention by chunks")

    def mel_frames(self, tokens: int) -> int:
        return int(tokens / self.input_frame_rate * self.sample_rate / self.hop_size)


@dataclass(frozen=True)
class CosyVoice2FlowConfig(FlowConfig):
    """CosyVoice 2: upsampling conformer with lookahead, causal U-Net; serves whole utterances and chunks alike."""

    encoder: UpsampleEncoderConfig = field(default_factory=UpsampleEncoderConfig)
    estimator: UNetConfig = field(
        default_factory=lambda: UNetConfig(channels=(256,), causal=True, static_chunk_size=50)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_unet(self.estimator, self.output_size)
        if not self.estimator.causal:
            raise ValueError("estimator.causal: CosyVoice 2 has a causal U-Net")

    def mel_frames(self, tokens: int) -> int:
        return tokens * self.encoder.upsample_factor


@dataclass(frozen=True)
class CosyVoice3FlowConfig(FlowConfig):
    """CosyVoice 3: lookahead convolution, repeated tokens, diffusion transformer."""

    token_mel_ratio: int = 2
    """Frames of a token."""
    pre_lookahead_len: int = 3
    """Tokens to the right that the lookahead convolution sees."""
    pre_lookahead_channels: int = 1024
    estimator: DiTConfig = field(default_factory=DiTConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mel_dim", "mu_dim", "spk_dim"):
            if getattr(self.estimator, name) != self.output_size:
                found = getattr(self.estimator, name)
                raise ValueError(f"estimator.{name}: {found} is not the {self.output_size} mel channels")

    def mel_frames(self, tokens: int) -> int:
        return tokens * self.token_mel_ratio
