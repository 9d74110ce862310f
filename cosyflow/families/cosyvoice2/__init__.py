"""CosyVoice 2: a Qwen2 decoder, a flow that also streams, at 25 speech tokens a second."""

from __future__ import annotations

from cosyflow.families.family import Family, SpeechTokenizer
from cosyflow.families.parts import FLOW, HIFIGAN, QWEN2_FOLDER, in_order, language_model

FAMILY = Family(
    name="cosyvoice2",
    text_tokenizer=QWEN2_FOLDER,
    speech_tokenizer=SpeechTokenizer("speech_tokenizer_v2.onnx", codebook_size=6561, tokens_per_second=25),
    parts=in_order(language_model(text_model=QWEN2_FOLDER), FLOW, HIFIGAN),
)
