"""The recipes of CosyVoice 3."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cosyflow.config import vocoder
from cosyflow.config.flow import CosyVoice3FlowConfig
from cosyflow.config.llm import CosyVoice3LMConfig
from cosyflow.config.mel import MelConf
from cosyflow.config.recipe import Recipe
from cosyflow.config.vocoder import HiFiGanConfig


@dataclass(frozen=True, kw_only=True)
class CosyVoice3Recipe(Recipe):
    """CosyVoice 3."""

    version: Literal["cosyvoice3"]
    sample_rate: int = 24000
    token_frame_rate: int = 25
    mel: MelConf = field(default_factory=lambda: MelConf(fmax=None))
    llm: CosyVoice3LMConfig = field(default_factory=CosyVoice3LMConfig)
    flow: CosyVoice3FlowConfig = field(default_factory=CosyVoice3FlowConfig)
    hifigan: HiFiGanConfig = field(default_factory=lambda: HiFiGanConfig(generator=vocoder.cosyvoice3()))


RECIPE = CosyVoice3Recipe
