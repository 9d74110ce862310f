"""CosyVoice: a text encoder and a transformer, a flow with a conformer, all at 50 speech tokens a second."""

from __future__ import annotations

from cosyflow.families.family import Family, SpeechTokenizer
from cosyflow.families.parts import FLOW, HIFIGAN, WHISPER_RANKS, in_order, language_model
from cosyflow.families.released import SPEAKER_ENCODER, Release, ReleasedFile

FAMILY = Family(
    name="cosyvoice",
    text_tokenizer=WHISPER_RANKS,
    speech_tokenizer=SpeechTokenizer("speech_tokenizer_v1.onnx", codebook_size=4096, tokens_per_second=50),
    parts=in_order(language_model(text_model=""), FLOW, HIFIGAN),
    release=Release(
        name="CosyVoice-300M",
        hugging_face="FunAudioLLM/CosyVoice-300M",
        modelscope="iic/CosyVoice-300M",
        files={
            "campplus.onnx": SPEAKER_ENCODER,
            "speech_tokenizer_v1.onnx": ReleasedFile(
                522_624_269, "23b5a723ed9143aebfd9ffda14ac4c21231f31c35ef837b6a13bb9e5488abb1e"
            ),
            "llm.pt": ReleasedFile(),
            "flow.pt": ReleasedFile(),
            "hift.pt": ReleasedFile(),
        },
    ),
)
