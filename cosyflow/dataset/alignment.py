"""The one rule that ties speech tokens, mel frames and samples of an utterance together.

N tokens stand for `flow.mel_frames(N)` mel frames of `hop_size` samples each. Tokens are made from audio that is cut to
whole frames of the tokenizer, so the audio is seldom that long: it is trimmed, or padded with zeros, at its end.
Mel and f0 are computed from the result, which makes their frames as many as the tokens say. Audio that is further off
than MAX_DIFFERENCE_TOKENS does not belong to the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from cosyflow.config.flow import FlowConfig
from cosyflow.config.recipe import Recipe
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.errors import CosyFlowError

MAX_DIFFERENCE_TOKENS = 3


def why_misaligned(tokens: int, seconds: float, token_frame_rate: int) -> str | None:
    """What is wrong when tokens, `token_frame_rate` a second, and audio do not belong together; None when they do."""
    if abs(seconds * token_frame_rate - tokens) <= MAX_DIFFERENCE_TOKENS:
        return None
    return (
        f"has {tokens} speech tokens for {seconds:.2f} s of audio, they stand for {tokens / token_frame_rate:.2f} s;"
        " make its tokens again from this audio and with the tokenizer of this version"
    )


@dataclass(frozen=True)
class Alignment:
    """How many frames and samples speech tokens stand for."""

    sample_rate: int
    """Hz of the speech that is synthesised."""
    hop_size: int
    """Samples of a mel frame."""
    token_frame_rate: int
    """Speech tokens a second."""
    flow: FlowConfig
    """Computes the mel frames of tokens."""

    @classmethod
    def of(cls, recipe: Recipe) -> Alignment:
        return cls(recipe.sample_rate, recipe.mel.hop_size, recipe.token_frame_rate, recipe.flow)

    @property
    def identity(self) -> tuple[int, ...]:
        """What of it decides how audio is cut."""
        return self.sample_rate, self.hop_size, self.token_frame_rate, self.frames(1000)

    def frames(self, tokens: int) -> int:
        """Mel frames of this number of tokens."""
        return self.flow.mel_frames(tokens)

    def why_misaligned(self, tokens: int, seconds: float) -> str | None:
        """What is wrong when tokens and audio of an utterance do not belong together."""
        return why_misaligned(tokens, seconds, self.token_frame_rate)

    def align(self, waveform: torch.Tensor, tokens: int, utterance: str) -> torch.Tensor:
        """Trims or pads a waveform [samples] at `sample_rate` to the samples of its tokens.

        Raises:
            CosyFlowError: it is too long or too short for them; names the utterance.
        """
        problem = self.why_misaligned(tokens, len(waveform) / self.sample_rate)
        if problem:
            raise CosyFlowError(f"utterance {utterance}: {problem}")
        samples = self.frames(tokens) * self.hop_size
        return F.pad(waveform[:samples], (0, max(0, samples - len(waveform))))

    def index_frames(self, index: UtteranceIndex) -> np.ndarray:
        """Mel frames of each utterance of an index: int64 [utterances]."""
        tokens, places = np.unique(index.speech_len, return_inverse=True)
        frames = np.array([self.frames(int(count)) for count in tokens], np.int64)
        of_each: np.ndarray = frames[places]
        return of_each
