"""Settings of the language models of CosyVoice 2 and 3, and what those of every version offer the batch builder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Protocol

ComputeType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class SamplingConfig:
    """How the next speech token is drawn; the field names are those of the official yaml files."""

    top_p: float = 0.8
    """Nucleus: candidates are taken, most likely first, until their probabilities add up to this."""
    top_k: int = 25
    """Maximum number of candidates."""
    win_size: int = 10
    """Number of tokens that repetition-aware sampling looks back; 0 turns it off."""
    tau_r: float = 0.1
    """A token that fills at least this share of the window is drawn again from all the others."""

    def __post_init__(self) -> None:
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: {self.top_p} is not in (0, 1]")
        if self.top_k < 1:
            raise ValueError(f"top_k: {self.top_k} is less than 1")
        if self.win_size < 0:
            raise ValueError(f"win_size: {self.win_size} is negative")
        if not 0 < self.tau_r <= 1:
            raise ValueError(f"tau_r: {self.tau_r} is not in (0, 1]")


@dataclass(frozen=True)
class DPOConfig:
    """Direct preference optimisation; the field names are those of the official yaml files."""

    beta: float = 0.01
    """How strongly the policy is held to the reference: small lets it move far."""
    label_smoothing: float = 0.0
    """Share of pairs whose chosen and rejected sequence are believed to be swapped; not with `ipo`."""
    ipo: bool = False
    """The identity preference loss, which aims at a margin of 1 / (2 beta) instead of an ever larger one."""
    logprob: Literal["sum", "mean"] = "sum"
    """Log-probability of a sequence: the sum over its targets, or their mean, which forgets its length."""
    sft_weight: float = 1.0
    """Weight of the next-token loss of the chosen sequences, which keeps them likely."""

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"beta: {self.beta} is not positive")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing: {self.label_smoothing} is not in [0, 0.5)")
        if self.ipo and self.label_smoothing:
            raise ValueError("label_smoothing: has no meaning with ipo, leave it at 0")
        if self.sft_weight < 0:
            raise ValueError(f"sft_weight: {self.sft_weight} is negative")


SpecialTable = Literal["special", "speech"]


@dataclass(frozen=True)
class SequenceLayout:
    """What the batch builder and the decoder must know of a model: vocabularies, special tokens and their order.

    A sequence is `sos, [speaker], [instruct...], text..., task, speech...`; interleaved, blocks of `mix_ratio` text and
    speech tokens come first and the rest follows in that order.
    """

    text_ids: int
    """Valid text ids are below this."""
    speech_ids: int
    """Valid speech ids are below this; output ids from here on end decoding."""
    output_ids: int
    """Rows of the speech head."""
    special_table: SpecialTable
    """The table that holds the start and task embeddings: one of their own, or the speech embedding."""
    sos: int
    """Row of the start embedding in `special_table`."""
    task: int
    """Row of the embedding that separates text from speech."""
    end: int
    """Output id that ends an utterance."""
    fill: int | None
    """Output id that asks for the next text block; None where the model does not interleave."""
    mix_ratio: tuple[int, int] | None
    """Text and speech tokens of an interleaved block."""
    speaker_dim: int | None
    """Length of the speaker embedding that follows `sos`; None where there is none."""
    takes_instruct: bool
    """Whether instruct tokens may come before the text."""
    encodes_text: bool
    """Whether the text runs through an encoder of its own before it enters the sequence."""


class LMConfig(Protocol):
    """What the settings of the language model of any version offer."""

    @property
    def layout(self) -> SequenceLayout: ...

    @property
    def lsm_weight(self) -> float: ...

    @property
    def sampling(self) -> SamplingConfig: ...


@dataclass(frozen=True)
class Qwen2Config:
    """Sizes of the Qwen2 decoder: names of the Hugging Face `config.json`, values of the released models."""

    vocab_size: int = 151936
    hidden_size: int = 896
    num_hidden_layers: int = 24
    num_attention_heads: int = 14
    num_key_value_heads: int = 2
    """Key and value heads; each serves `num_attention_heads / num_key_value_heads` query heads."""
    intermediate_size: int = 4864
    rope_theta: float = 1000000.0
    """Base of the rotary position embedding."""
    rms_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for entry in fields(self):
            if getattr(self, entry.name) <= 0:
                raise ValueError(f"{entry.name}: {getattr(self, entry.name)} is not positive")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size: {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.hidden_size // self.num_attention_heads % 2:
            raise ValueError(
                f"hidden_size: a head of {self.hidden_size // self.num_attention_heads} cannot be rotated in pairs"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads: {self.num_key_value_heads} does not divide"
                f" num_attention_heads {self.num_attention_heads}"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_huggingface(cls, values: Mapping[str, Any]) -> Qwen2Config:
        """Takes the sizes from a `config.json`, old (`rope_theta` at the top) or new (`rope_parameters`).

        Raises:
            ValueError: the file describes something that these blocks do not compute.
        """
        expected = {
            "hidden_act": "silu",
            "use_sliding_window": False,
            "tie_word_embeddings": True,
            "model_type": "qwen2",
        }
        for key, value in expected.items():
            if values.get(key, value) != value:
                raise ValueError(f"{key}: {values[key]!r} is not supported, only {value!r}")
        rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise ValueError(f"rope_scaling: {rope} is not supported")
        sizes = {entry.name: values[entry.name] for entry in fields(cls) if entry.name in values}
        if "rope_theta" in rope:
            sizes["rope_theta"] = float(rope["rope_theta"])
        return cls(**sizes)


@dataclass(frozen=True)
class SpeechLMConfig:
    """What the language models of CosyVoice 2 and 3 have in common."""

    qwen2: Qwen2Config = field(default_factory=Qwen2Config)
    speech_token_size: int = 6561
    """Codes of the speech tokenizer."""
    lsm_weight: float = 0.0
    """Label smoothing: probability spread over the wrong classes."""
    mix_ratio: tuple[int, int] = (5, 15)
    """Text and speech tokens of an interleaved block."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    compute_dtype: ComputeType = "float32"
    """Type of activations and matrix products; the weights stay float32."""
    activation_checkpointing: bool = False
    """Recompute each layer's activations in the backward pass instead of keeping them."""
    freeze_text_embedding: bool = False
    """Leave the text table as it is; it is the largest tensor and most of its rows are never seen."""

    def __post_init__(self) -> None:
        if self.speech_token_size < 1:
            raise ValueError(f"speech_token_size: {self.speech_token_size} is less than 1")
        if not 0 <= self.lsm_weight < 1:
            raise ValueError(f"lsm_weight: {self.lsm_weight} is not in [0, 1)")
        if min(self.mix_ratio) < 1:
            raise ValueError(f"mix_ratio: {self.mix_ratio} has a part below 1")


@dataclass(frozen=True)
class CosyVoice2LMConfig(SpeechLMConfig):
    """CosyVoice 2: start and task embeddings in a table of their own, three extra speech ids, a head with bias."""

    extra_speech_ids: ClassVar[int] = 3
    head_bias: ClassVar[bool] = True

    @property
    def layout(self) -> SequenceLayout:
        size = self.speech_token_size
        return SequenceLayout(
            text_ids=self.qwen2.vocab_size,
            speech_ids=size,
            output_ids=size + self.extra_speech_ids,
            special_table="special",
            sos=0,
            task=1,
            end=size,
            fill=size + 2,
            mix_ratio=self.mix_ratio,
            speaker_dim=None,
            takes_instruct=False,
            encodes_text=False,
        )


@dataclass(frozen=True)
class CosyVoice3LMConfig(SpeechLMConfig):
    """CosyVoice 3: every special token is one of 200 extra speech ids, a head without bias."""

    extra_speech_ids: ClassVar[int] = 200
    head_bias: ClassVar[bool] = False

    @property
    def layout(self) -> SequenceLayout:
        size = self.speech_token_size
        return SequenceLayout(
            text_ids=self.qwen2.vocab_size,
            speech_ids=size,
            output_ids=size + self.extra_speech_ids,
            special_table="speech",
            sos=size,
            task=size + 2,
            end=size + 1,
            fill=size + 3,
            mix_ratio=self.mix_ratio,
            speaker_dim=None,
            takes_instruct=True,
            encodes_text=False,
        )
