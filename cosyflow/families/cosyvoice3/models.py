"""The models of CosyVoice 3 as they speak: of the vocoder the generator, without discriminators."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from cosyflow.families.cosyvoice3.recipe import CosyVoice3Recipe
from cosyflow.models.flow.model import CosyVoice3Flow
from cosyflow.models.llm.speech_lm import SpeechLM
from cosyflow.models.vocoder.hift import HiFTGenerator

BUILDERS: Mapping[str, Callable[[CosyVoice3Recipe], nn.Module]] = {
    "llm": lambda recipe: SpeechLM(recipe.llm),
    "flow": lambda recipe: CosyVoice3Flow(recipe.flow),
    "hifigan": lambda recipe: HiFTGenerator(recipe.hifigan.generator),
}
