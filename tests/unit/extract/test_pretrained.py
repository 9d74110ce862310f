"""Files of the pretrained directory are found, or their absence is told with where to get them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.errors import CosyFlowError
from cosyflow.families.parts import QWEN2_FOLDER, VOCODERS
from cosyflow.pretrained import SPEAKER_MODEL, codebook_size, is_stand_in, locate
from cosyflow.standins.models import make_stand_ins


def test_what_is_there_is_found(tmp_path: Path) -> None:
    assert not is_stand_in(str(tmp_path))
    make_stand_ins(tmp_path)
    assert is_stand_in(str(tmp_path))
    for name in (SPEAKER_MODEL, QWEN2_FOLDER):
        assert locate(str(tmp_path), name) == str(tmp_path / name)
    (tmp_path / "hifigan.pt").touch()
    assert locate(str(tmp_path), *VOCODERS) == str(tmp_path / "hifigan.pt")
    (tmp_path / "hift.pt").touch()
    assert locate(str(tmp_path), *VOCODERS) == str(tmp_path / "hift.pt")


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        ((SPEAKER_MODEL,), "campplus.onnx: no such file; copy campplus.onnx from a released .* cosyflow stand-ins DIR"),
        (VOCODERS, "hift.pt: no such file; copy hift.pt or hifigan.pt from a released CosyVoice model$"),
        (
            ("speech_tokenizer_v2.onnx",),
            r"model \(FunAudioLLM/CosyVoice2-0.5B on Hugging Face, iic/CosyVoice2-0.5B on Mod",
        ),
        (("llm.pt",), "llm.pt: no such file; copy llm.pt from a released CosyVoice model$"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, names: tuple[str, ...], advice: str) -> None:
    with pytest.raises(CosyFlowError, match=advice):
        locate(str(tmp_path), *names)


def test_codebook_by_name() -> None:
    assert codebook_size("s3://models/speech_tokenizer_v1.onnx") == 4096
    assert codebook_size("there/speech_tokenizer_v2.onnx") == 6561
    with pytest.raises(CosyFlowError, match="give its codebook_size"):
        codebook_size("tokens.onnx")
