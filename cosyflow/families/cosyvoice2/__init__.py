"""CosyVoice 2: a Qwen2 decoder, a flow that also streams, at 25 speech tokens a second."""

from __future__ import annotations

from cosyflow.families.family import Family, SpeechTokenizer
from cosyflow.families.parts import FLOW, HIFIGAN, QWEN2_FOLDER, in_order, language_model
from cosyflow.families.released import SPEAKER_ENCODER, Release, ReleasedFile, with_qwen2

FAMILY = Family(
    name="cosyvoice2",
    text_tokenizer=QWEN2_FOLDER,
    speech_tokenizer=SpeechTokenizer("speech_tokenizer_v2.onnx", codebook_size=6561, tokens_per_second=25),
    parts=in_order(language_model(text_model=QWEN2_FOLDER), FLOW, HIFIGAN),
    release=Release(
        name="CosyVoice2-0.5B",
        hugging_face="FunAudioLLM/CosyVoice2-0.5B",
        modelscope="iic/CosyVoice2-0.5B",
        files={
            "campplus.onnx": SPEAKER_ENCODER,
            "speech_tokenizer_v2.onnx": ReleasedFile(
                496_082_973, "d43342aa12163a80bf07bffb94c9de2e120a8df2f9917cd2f642e7f4219c6f71"
            ),
            "llm.pt": ReleasedFile(2_023_316_821, "b144ef55b51ce8cfb79a73c90dbba0bdaba4e451c0ebcfab20f769264f84a608"),
            "flow.pt": ReleasedFile(450_575_567, "ff4c2f867674411e0a08cee702996df13fa67c1cd864c06108da88d16d088541"),
            "hift.pt": ReleasedFile(83_390_254, "3386cc880324d4e98e05987b99107f49e40ed925b8ecc87c1f4939432d429879"),
            **with_qwen2(QWEN2_FOLDER),
        },
    ),
)
