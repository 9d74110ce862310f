"""A recipe: everything that one YAML file of conf/ settles, for each version of CosyVoice."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from cosyflow.config.data import CorpusConf, FilterConf
from cosyflow.config.llm import CosyVoice2LMConfig, CosyVoice3LMConfig
from cosyflow.config.training import TrainConf
from cosyflow.config.transformer import CosyVoice1LMConfig

Version = Literal["cosyvoice", "cosyvoice2", "cosyvoice3"]
Part = Literal["llm", "flow", "hifigan"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What the versions have in common. Unknown keys and wrong types are refused (see cosyflow.config.load)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    version: Version
    sample_rate: int
    """Hz of the audio that is synthesised."""
    token_frame_rate: int
    """Speech tokens a second."""
    corpus: CorpusConf = field(default_factory=CorpusConf)
    filter: FilterConf = field(default_factory=FilterConf)
    use_spk_embedding: bool = False
    """Train with the speaker's mean embedding instead of the utterance's own."""
    train_conf: TrainConf = field(default_factory=TrainConf)


@dataclass(frozen=True, kw_only=True)
class CosyVoice1Recipe(Recipe):
    """CosyVoice."""

    version: Literal["cosyvoice"]
    sample_rate: int = 22050
    token_frame_rate: int = 50
    llm: CosyVoice1LMConfig = field(default_factory=CosyVoice1LMConfig)


@dataclass(frozen=True, kw_only=True)
class CosyVoice2Recipe(Recipe):
    """CosyVoice 2."""

    version: Literal["cosyvoice2"]
    sample_rate: int = 24000
    token_frame_rate: int = 25
    llm: CosyVoice2LMConfig = field(default_factory=CosyVoice2LMConfig)


@dataclass(frozen=True, kw_only=True)
class CosyVoice3Recipe(Recipe):
    """CosyVoice 3."""

    version: Literal["cosyvoice3"]
    sample_rate: int = 24000
    token_frame_rate: int = 25
    llm: CosyVoice3LMConfig = field(default_factory=CosyVoice3LMConfig)


RECIPES: dict[str, type[Recipe]] = {
    "cosyvoice": CosyVoice1Recipe,
    "cosyvoice2": CosyVoice2Recipe,
    "cosyvoice3": CosyVoice3Recipe,
}
