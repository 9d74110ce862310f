"""The text tokenizer of CosyVoice 2: Qwen2's, with tokens of its own."""

from __future__ import annotations

from cosyflow.text.special_tokens import COSYVOICE2
from cosyflow.text.tokenizer import Tokenizer, qwen2_tokenizer


def build_tokenizer(directory: str) -> Tokenizer:
    """Reads the folder `CosyVoice-BlankEN` of a pretrained directory, local or s3://, or that folder itself."""
    return qwen2_tokenizer(directory, COSYVOICE2)
