"""The text tokenizer of CosyVoice: Whisper's."""

from __future__ import annotations

from cosyflow.text.tokenizer import Tokenizer, whisper_tokenizer


def build_tokenizer(directory: str) -> Tokenizer:
    """Reads `multilingual.tiktoken` of a pretrained directory, local or s3://."""
    return whisper_tokenizer(directory)
