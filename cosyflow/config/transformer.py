"""Settings of the relative-position encoders and of the CosyVoice 1 language model that is made of two of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
    """Attention sees its own chunk of so many positions and all before it. 1 is causal, 0 sees the whole sequence."""

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
