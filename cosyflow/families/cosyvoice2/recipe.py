"""The recipes of CosyVoice 2."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cosyflow.config.flow import CosyVoice2FlowConfig
from cosyflow.config.llm import CosyVoice2LMConfig
from cosyflow.config.recipe import Recipe
from cosyflow.config.vocoder import HiFiGanConfig


@dataclass(frozen=True, kw_only=True)
class CosyVoice2Recipe(Recipe):
    """CosyVoice 2."""

    version: Literal["cosyvoice2"]
    sample_rate: int = 24000
    token_frame_rate: int = 25
    llm: CosyVoice2LMConfig = field(default_factory=CosyVoice2LMConfig)
    flow: CosyVoice2FlowConfig = field(default_factory=CosyVoice2FlowConfig)
    hifigan: HiFiGanConfig = field(default_factory=HiFiGanConfig)


RECIPE = CosyVoice2Recipe
