"""The three models in a row: text to speech tokens, tokens to mel, mel to waveform."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor, nn

from cosyflow import storage
from cosyflow.checkpoint.official import load_official
from cosyflow.config.recipe import Recipe
from cosyflow.errors import CosyFlowError
from cosyflow.families import facet, family
from cosyflow.models.flow.model import Flow
from cosyflow.models.llm.decoding import Sampler, decode, multinomial
from cosyflow.models.llm.speech_lm import SpeechLM
from cosyflow.models.llm.transformer_lm import TransformerLM
from cosyflow.models.vocoder.hift import HiFTGenerator
from cosyflow.pretrained import locate
from cosyflow.progress import Progress
from cosyflow.synthesis.prompt import Prompt
from cosyflow.synthesis.request import Request
from cosyflow.text.tokenizer import Tokenizer, build_tokenizer

FEWEST_TOKENS, MOST_TOKENS = 2, 20
"""Speech tokens of a text token."""
END_OF_PROMPT = "<|endofprompt|>"
DEFAULT_INSTRUCT = f"You are a helpful assistant.{END_OF_PROMPT}"
"""CosyVoice 3's instruction before the prompt's text, as in its training, where the user gives no other."""


@dataclass(frozen=True)
class Synthesizer:
    """The models of a model directory, on one device."""

    recipe: Recipe
    tokenizer: Tokenizer
    llm: TransformerLM | SpeechLM
    flow: Flow
    vocoder: HiFTGenerator
    device: torch.device

    @classmethod
    def load(
        cls, model_dir: str, recipe: Recipe, device: str = "", weights: Mapping[str, str] = MappingProxyType({})
    ) -> Self:
        """Loads tokenizer and models.

        Args:
            model_dir: see `cosyflow.synthesis.synthesize`.
            recipe: sizes of the models.
            device: "cpu", "cuda:1", ...; empty is CUDA where there is one.
            weights: checkpoints of parts, by name, that count instead of those of the directory.

        Raises:
            CosyFlowError: a file is missing, or does not fit the recipe.
        """
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        tokenizer = build_tokenizer(recipe.version, model_dir)
        with _global_seed_kept(), Progress("load", 3, "models") as progress:
            builders, parts = facet(recipe.version, "models").BUILDERS, family(recipe.version).parts
            models = {}
            for name, part in parts.items():
                models[name] = builders[name](recipe)
                _load(models[name], weights.get(name) or locate(model_dir, *part.weights), place)
                progress.update()
            llm, flow, vocoder = models.values()
            vocoder.remove_weight_norm()
        return cls(recipe, tokenizer, llm, flow, vocoder, place)

    def speak(self, request: Request, prompt: Prompt, seed: int = 0) -> Tensor:
        """The waveform of a text, float32 [samples] on the CPU: one mel frame's samples for each frame of the flow.

        Args:
            request: what to speak.
            prompt: the voice.
            seed: of everything that is drawn; no global seed is read or changed.

        Raises:
            CosyFlowError: the text has tokens that the language model does not know.
        """
        return self.waveform(list(self.speech_tokens(request, prompt, seed)), prompt, seed)

    def waveform(self, tokens: Sequence[int], prompt: Prompt, seed: int = 0) -> Tensor:
        """The waveform of speech tokens, as `speak` gives it."""
        mel = self.mel(tokens, prompt, seed)
        waveform = self.vocoder.inference(mel, rng=self._vocoder_generator(seed)).waveform
        return waveform[0].cpu()

    def speech_tokens(self, request: Request, prompt: Prompt, seed: int = 0) -> Iterator[int]:
        """The speech tokens of a text, one by one, as they are drawn."""
        prompt_text = request.prompt_text
        if self.recipe.llm.layout.takes_instruct and END_OF_PROMPT not in prompt_text + request.text:
            prompt_text = DEFAULT_INSTRUCT + prompt_text
        before, text = self._encode(prompt_text), self._encode(request.text)
        generator = torch.Generator(self.device).manual_seed(seed)
        sampler = Sampler(self.recipe.llm.sampling, multinomial(generator))
        fewest, most = FEWEST_TOKENS * len(text), MOST_TOKENS * len(text)
        start = self._begin([*before, *text], prompt)
        with Progress("speech tokens", None, "tokens") as progress:
            for token in decode(self.llm, start, sampler, fewest, most):
                progress.update()
                yield token

    def mel(self, tokens: Sequence[int], prompt: Prompt, seed: int = 0) -> Tensor:
        """The mel spectrogram of speech tokens: [1, mel channels, frames]."""
        with Progress("mel", 1, "utterances") as progress:
            mel = self.flow.generate(
                torch.tensor([tokens], device=self.device),
                torch.tensor([prompt.tokens], device=self.device),
                prompt.mel.to(self.device),
                prompt.embedding.to(self.device),
                seed,
            )
            progress.update(1, frames=mel.size(2))
        return mel

    def _begin(self, text: Sequence[int], prompt: Prompt) -> Tensor:
        """The language model's input before the first token: [n, H]."""
        with torch.inference_mode():
            if isinstance(self.llm, TransformerLM):
                return self.llm.prompt(text, prompt.tokens, prompt.embedding[0])
            return self.llm.prompt(text, prompt.tokens)

    def _encode(self, text: str) -> list[int]:
        ids, known = self.tokenizer.encode(text), self.recipe.llm.layout.text_ids
        if ids and max(ids) >= known:
            raise CosyFlowError(
                f"text {text!r}: token {max(ids)} is outside the {known} of the language model; is the text tokenizer"
                " that of its training?"
            )
        return ids

    def _vocoder_generator(self, seed: int) -> torch.Generator | None:
        """A causal vocoder has noise that never changes."""
        if self.recipe.hifigan.generator.causal:
            return None
        return torch.Generator(self.device).manual_seed(seed)


@contextmanager
def _global_seed_kept() -> Iterator[None]:
    """Models are built with random weights, which are then replaced."""
    with torch.random.fork_rng(devices=[]):
        yield


def _load(model: nn.Module, uri: str, device: torch.device) -> None:
    with storage.local_copy(uri) as path:
        load_official(model, path)
    model.to(device).eval().requires_grad_(False)
