"""Settings of the relative-position encoders and of the CosyVoice 1 language model that is made of two of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cosyflow.config.llm import ComputeType, SamplingConfig, SequenceLayout


@dataclass(frozen=True)
class EncoderConfig:
    """A stack of self-attention layers with relative positions.

    `layer`, `input_layer` and `activation_type` are the three ways in which the official text encoder, the official
    language model and the official flow encoders differ from each other.
    """

    input_size: int = 512
    """Channels of the input."""
    output_size: int = 512
    """Channels inside the layers and of the output."""
    attention_heads: int = 8
    linear_units: int = 2048
    """Channels between the two linear maps of the feed-forward part."""
    num_blocks: int = 6
    dropout_rate: float = 0.1
    positional_dropout_rate: float = 0.1
    """Applied to the scaled input and to the table of relative positions."""
    attention_dropout_rate: float = 0.0
    """Applied to the attention weights."""
    layer: Literal["conformer", "transformer"] = "conformer"
    """Names the two norms of a layer in the checkpoint: `norm_mha`/`norm_ff`, or `norm1`/`norm2`."""
    input_layer: Literal["linear", "linear_legacy"] = "linear"
    """`linear_legacy` ends with a ReLU."""
    activation_type: Literal["relu", "swish"] = "swish"
    static_chunk_size: int = 0
    """Chunk size in positions: attention sees its own and earlier chunks. 1 is causal, 0 sees the whole sequence."""

    def __post_init__(self) -> None:
        for name in ("input_size", "output_size", "attention_heads", "linear_units", "num_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive")
        if self.output_size % (2 * self.attention_heads):
            raise ValueError(f"output_size: {self.output_size} is not a multiple of 2 x {self.attention_heads} heads")
        for name in ("dropout_rate", "positional_dropout_rate", "attention_dropout_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not in [0, 1)")
        if self.static_chunk_size < 0:
            raise ValueError(f"static_chunk_size: {self.static_chunk_size} is negative")


def _released_text_encoder() -> EncoderConfig:
    return EncoderConfig(512, 1024, attention_heads=16, linear_units=4096, num_blocks=6, static_chunk_size=1)


def _released_llm() -> EncoderConfig:
    return EncoderConfig(
        1024,
        1024,
        attention_heads=16,
        linear_units=4096,
        num_blocks=14,
        layer="transformer",
        input_layer="linear_legacy",
        activation_type="relu",
        static_chunk_size=1,
    )


@dataclass(frozen=True)
class CosyVoice1LMConfig:
    """CosyVoice 1: a text encoder, a speaker embedding, and a transformer that continues them with speech tokens."""

    text_token_size: int = 51866
    """Rows of the text table; 60515 for the 25 Hz model."""
    speech_token_size: int = 4096
    """Codes of the speech tokenizer."""
    spk_embed_dim: int = 192
    """Length of the speaker embedding."""
    text_encoder: EncoderConfig = field(default_factory=_released_text_encoder)
    llm: EncoderConfig = field(default_factory=_released_llm)
    lsm_weight: float = 0.0
    """Label smoothing: probability spread over the wrong classes."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    compute_dtype: ComputeType = "float32"
    """Type of activations and matrix products; the weights stay float32."""
    activation_checkpointing: bool = False
    """Recompute each layer's activations in the backward pass instead of keeping them."""
    freeze_text_embedding: bool = False
    """Leave the text table as it is."""

    def __post_init__(self) -> None:
        for name in ("text_token_size", "speech_token_size", "spk_embed_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive")
        if not 0 <= self.lsm_weight < 1:
            raise ValueError(f"lsm_weight: {self.lsm_weight} is not in [0, 1)")
        for name in ("text_encoder", "llm"):
            if getattr(self, name).static_chunk_size != 1:
                raise ValueError(f"{name}.static_chunk_size: it is 1 (causal) in a language model")

    @property
    def layout(self) -> SequenceLayout:
        size = self.speech_token_size
        return SequenceLayout(
            text_ids=self.text_token_size,
            speech_ids=size,
            output_ids=size + 1,
            special_table="special",
            sos=0,
            task=1,
            end=size,
            fill=None,
            mix_ratio=None,
            speaker_dim=self.spk_embed_dim,
            encodes_text=True,
            takes_instruct=False,
        )
