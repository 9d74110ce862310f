"""CosyVoice 3: as CosyVoice 2, with a diffusion transformer in the flow and a causal vocoder."""

from __future__ import annotations

from cosyflow.families.family import Family, SpeechTokenizer
from cosyflow.families.parts import FLOW, HIFIGAN, QWEN2_FOLDER, in_order, language_model
from cosyflow.families.released import SPEAKER_ENCODER, Release, ReleasedFile, with_qwen2

FAMILY = Family(
    name="cosyvoice3",
    text_tokenizer=QWEN2_FOLDER,
    speech_tokenizer=SpeechTokenizer("speech_tokenizer_v3.onnx", codebook_size=6561, tokens_per_second=25),
    parts=in_order(language_model(text_model=QWEN2_FOLDER), FLOW, HIFIGAN),
    release=Release(
        name="Fun-CosyVoice3-0.5B",
        hugging_face="FunAudioLLM/Fun-CosyVoice3-0.5B-2512",
        modelscope="FunAudioLLM/Fun-CosyVoice3-0.5B-2512",
        files={
            "campplus.onnx": SPEAKER_ENCODER,
            "speech_tokenizer_v3.onnx": ReleasedFile(
                969_451_503, "23236a74175dbdda47afc66dbadd5bcb41303c467a57c261cb8539ad9db9208d"
            ),
            "llm.pt": ReleasedFile(2_024_669_519, "69f43bd545131c30e98947fb360ea8b4dc9916d8e83dded7757c7ea4f5a24970"),
            "flow.pt": ReleasedFile(1_329_116_148, "a6fab32a7825e5b0bc855ddd948f8db9370b0a786fbc249caa4595e95b608e4b"),
            "hift.pt": ReleasedFile(83_202_622, "b279d7641eb97ae55b3b540cfba4f953c26492a2df758328a89a4d007ab87a65"),
            **with_qwen2(QWEN2_FOLDER),
        },
    ),
)
