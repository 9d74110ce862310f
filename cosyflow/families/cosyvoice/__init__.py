"""CosyVoice: a text encoder and a transformer, a flow with a conformer, all at 50 speech tokens a second."""

from __future__ import annotations

from cosyflow.families.family import Family, SpeechTokenizer
from cosyflow.families.parts import FLOW, HIFIGAN, WHISPER_RANKS, in_order, language_model

FAMILY = Family(
    name="cosyvoice",
    text_tokenizer=WHISPER_RANKS,
    speech_tokenizer=SpeechTokenizer("speech_tokenizer_v1.onnx", codebook_size=4096, tokens_per_second=50),
    parts=in_order(language_model(text_model=""), FLOW, HIFIGAN),
)
