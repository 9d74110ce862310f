"""Text to speech with a trained model, in the voice of a short recording (zero-shot)."""

from __future__ import annotations

from torch import Tensor

from cosyflow.config.recipe import Recipe
from cosyflow.synthesis.prompt import PromptReader
from cosyflow.synthesis.request import Request
from cosyflow.synthesis.synthesizer import Synthesizer


def synthesize(
    model_dir: str, recipe: Recipe, text: str, prompt_wav: str, prompt_text: str, seed: int = 0
) -> tuple[Tensor, int]:
    """Speaks a text as one utterance. Equal arguments give equal samples.

    Who speaks more than once keeps a `PromptReader` and a `Synthesizer`.

    Args:
        model_dir: a complete model directory, local or s3://: `llm.pt`, `flow.pt`, `hift.pt` (or `hifigan.pt`), the
            speaker-embedding model, the speech tokenizer, and the text tokenizer's files.
        recipe: sizes of the models.
        text: what is spoken.
        prompt_wav: recording of the voice, 16 kHz or more, at most 30 s.
        prompt_text: what is said there.
        seed: of everything that is drawn.

    Returns:
        waveform float32 [samples], and its sampling rate in Hz.

    Raises:
        CosyFlowError: the text, the recording or a file of the model directory cannot be used.
    """
    request = Request(text, prompt_wav, prompt_text)
    prompt = PromptReader.load(model_dir, recipe).read(request)
    synthesizer = Synthesizer.load(model_dir, recipe)
    return synthesizer.speak(request, prompt, seed), recipe.sample_rate
