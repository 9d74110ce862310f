"""What the models are given of the recording whose voice speaks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Self

import torch
from torch import Tensor

from cosyflow import storage
from cosyflow.audio.features import MelSettings, mel_spectrogram
from cosyflow.audio.opener import open_audio
from cosyflow.audio.speech import resample
from cosyflow.config.flow import CosyVoice1FlowConfig
from cosyflow.config.recipe import Recipe
from cosyflow.errors import CosyFlowError
from cosyflow.extract.job import Extractor, Item
from cosyflow.extract.model import ModelFile
from cosyflow.extract.speaker_embedding import SpeakerEmbedder
from cosyflow.extract.speech_token import SpeechTokenizer
from cosyflow.families import family
from cosyflow.pretrained import SPEAKER_MODEL, locate
from cosyflow.synthesis.request import Request


@dataclass(frozen=True)
class Prompt:
    """The voice to speak in."""

    tokens: list[int]
    """Speech tokens of the recording."""
    mel: Tensor
    """float32 [1, G, mel channels]; of CosyVoice 2 and 3 exactly the frames that the tokens stand for."""
    embedding: Tensor
    """float32 [1, D], of the speaker."""


@dataclass(frozen=True)
class PromptReader:
    """Makes prompts with the two extraction models of a model directory."""

    recipe: Recipe
    embedder: SpeakerEmbedder
    tokenizer: SpeechTokenizer

    @classmethod
    def load(cls, model_dir: str, recipe: Recipe) -> Self:
        """Loads both models.

        Raises:
            CosyFlowError: one of them is missing or is another model.
        """
        known = family(recipe.version).speech_tokenizer
        speaker, tokenizer = locate(model_dir, SPEAKER_MODEL), locate(model_dir, known.file)
        with storage.local_copy(speaker) as speaker_path, storage.local_copy(tokenizer) as tokenizer_path:
            return cls(
                recipe,
                SpeakerEmbedder.load(ModelFile(str(speaker_path), speaker)),
                SpeechTokenizer.load(ModelFile(str(tokenizer_path), tokenizer), known.codebook_size),
            )

    def read(self, request: Request) -> Prompt:
        """Reads the recording of a request.

        Raises:
            CosyFlowError: it is too short, or the speech tokenizer is not that of the recipe's models.
        """
        wav = request.prompt_wav
        tokens, mel = self._align(self.tokens(wav), self._mel(wav))
        if not tokens:
            raise CosyFlowError(f"{wav}: too short for a speech token, give a few seconds of speech")
        return Prompt(tokens, mel, torch.tensor(_extract(self.embedder, wav))[None])

    def tokens(self, wav: str) -> list[int]:
        """The speech tokens of a recording.

        Raises:
            CosyFlowError: it cannot be used, or the speech tokenizer is not that of the recipe's models.
        """
        tokens = [int(token) for token in _extract(self.tokenizer, wav)]
        if max(tokens) >= self.recipe.llm.layout.speech_ids:
            raise CosyFlowError(
                f"{wav}: its speech tokens go up to {max(tokens)}, the language model has"
                f" {self.recipe.llm.layout.speech_ids}; is the speech tokenizer that of its training?"
            )
        return tokens

    def _mel(self, wav: str) -> Tensor:
        """[1, frames, mel channels], of the audio at the recipe's own rate."""
        waveform, source_rate = open_audio(wav)
        mono = resample(waveform.mean(dim=0), source_rate, self.recipe.sample_rate)
        settings = MelSettings(sample_rate=self.recipe.sample_rate, **asdict(self.recipe.mel))
        return mel_spectrogram(mono, settings).T[None]

    def _align(self, tokens: list[int], mel: Tensor) -> tuple[list[int], Tensor]:
        """Leaves as many tokens and frames as stand for each other; CosyVoice interpolates and takes any."""
        if isinstance(self.recipe.flow, CosyVoice1FlowConfig):
            return tokens, mel
        frames_of_a_token = self.recipe.flow.mel_frames(1)
        count = min(len(tokens), mel.size(1) // frames_of_a_token)
        return tokens[:count], mel[:, : count * frames_of_a_token]


def _extract(extractor: Extractor, wav: str) -> list[float]:
    """What a model makes of one recording. Raises CosyFlowError with the reason when it can make nothing of it."""
    result = extractor.extract([Item("prompt", wav)])
    if "prompt" in result.rejects:
        raise CosyFlowError(result.rejects["prompt"])
    return result.values["prompt"]
