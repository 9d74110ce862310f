"""What is to be spoken, and in which voice."""

from __future__ import annotations

from dataclasses import dataclass

from cosyflow.audio.opener import inspect_audio
from cosyflow.errors import CosyFlowError

LONGEST_PROMPT = 30.0
"""Seconds; the speech tokenizers take no more."""
LOWEST_RATE = 16000
"""Hz, of a prompt; below it the speech tokenizer's input has no treble."""


@dataclass(frozen=True)
class Request:
    """A text, and a recording of the voice with what is said in it.

    Raises:
        CosyFlowError: a text is empty, or the recording is missing, damaged, too long or of too low a rate.
    """

    text: str
    prompt_wav: str
    prompt_text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise CosyFlowError("text: it is empty, give something to speak")
        if not self.prompt_text.strip():
            raise CosyFlowError(f"prompt_text: it is empty, give what is said in {self.prompt_wav}")
        recording = inspect_audio(self.prompt_wav)
        if recording.sample_rate < LOWEST_RATE:
            raise CosyFlowError(
                f"{self.prompt_wav}: {recording.sample_rate} Hz, a prompt has at least {LOWEST_RATE} Hz"
            )
        if recording.seconds > LONGEST_PROMPT:
            raise CosyFlowError(
                f"{self.prompt_wav}: {recording.seconds:.2f} s, a prompt has at most {LONGEST_PROMPT:g} s; cut it and"
                " its text"
            )
