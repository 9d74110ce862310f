"""The models of CosyVoice 2 as they speak: of the vocoder the generator, without discriminators."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from cosyflow.families.cosyvoice2.recipe import CosyVoice2Recipe
from cosyflow.models.flow.model import CosyVoice2Flow
from cosyflow.models.llm.speech_lm import SpeechLM
from cosyflow.models.vocoder.hift import HiFTGenerator

BUILDERS: Mapping[str, Callable[[CosyVoice2Recipe], nn.Module]] = {
    "llm": lambda recipe: SpeechLM(recipe.llm),
    "flow": lambda recipe: CosyVoice2Flow(recipe.flow),
    "hifigan": lambda recipe: HiFTGenerator(recipe.hifigan.generator),
}
