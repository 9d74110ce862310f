"""How the parts of CosyVoice are trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cosyflow.training.parts import Part, flow, language_model, vocoder
from cosyflow.training.setup import Setup

BUILDERS: Mapping[str, Callable[[Setup], Part]] = {"llm": language_model, "flow": flow, "hifigan": vocoder}
