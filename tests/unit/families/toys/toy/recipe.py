"""The recipes of the toy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cosyflow.config.flow import CosyVoice2FlowConfig
from cosyflow.config.llm import CosyVoice2LMConfig
from cosyflow.config.recipe import Recipe
from cosyflow.config.vocoder import HiFiGanConfig


@dataclass(frozen=True)
class CounterConfig:
    numbers: int = 17
    channels: int = 8


@dataclass(frozen=True, kw_only=True)
class ToyRecipe(Recipe):
    version: Literal["toy"]
    sample_rate: int = 24000
    token_frame_rate: int = 25
    counter: CounterConfig = field(default_factory=CounterConfig)
    llm: CosyVoice2LMConfig = field(default_factory=CosyVoice2LMConfig)
    flow: CosyVoice2FlowConfig = field(default_factory=CosyVoice2FlowConfig)
    hifigan: HiFiGanConfig = field(default_factory=HiFiGanConfig)


RECIPE = ToyRecipe
