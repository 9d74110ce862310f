"""The models of CosyVoice as they speak: of the vocoder the generator, without discriminators."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from cosyflow.families.cosyvoice.recipe import CosyVoice1Recipe
from cosyflow.models.flow.model import CosyVoice1Flow
from cosyflow.models.llm.transformer_lm import TransformerLM
from cosyflow.models.vocoder.hift import HiFTGenerator

BUILDERS: Mapping[str, Callable[[CosyVoice1Recipe], nn.Module]] = {
    "llm": lambda recipe: TransformerLM(recipe.llm),
    "flow": lambda recipe: CosyVoice1Flow(recipe.flow),
    "hifigan": lambda recipe: HiFTGenerator(recipe.hifigan.generator),
}
