"""A recipe whose parts do not fit each other is refused, with the line of the part."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.config.load import RecipeError, load_config
from cosyflow.errors import CosyFlowError

CONF = Path(__file__).resolve().parents[3] / "conf"


@pytest.mark.parametrize(
    ("recipe", "setting", "complaint"),
    [
        ("cosyvoice2", "llm.speech_token_size=7000", "flow.vocab_size: 6561 is less than the 7000 speech tokens"),
        ("cosyvoice2", "sample_rate=22050", "hifigan.generator.sampling_rate: 24000 is not the sample_rate 22050"),
        ("cosyvoice2", "mel.hop_size=240", "hifigan.generator.upsample_rates: they make 480 samples of a mel frame"),
        ("cosyvoice2", "mel.fmax=16000.0", "mel.fmax: 16000.0 is above half of the sample_rate 24000"),
        ("cosyvoice2", "token_frame_rate=50", "the flow makes 100 mel frames of 50 speech tokens, a second has 50"),
        ("cosyvoice", "flow.input_frame_rate=25", "token_frame_rate: the flow makes 172.265 mel frames of 50"),
        ("cosyvoice3", "mel.num_mels=100", "flow.output_size: 80 is not mel.num_mels 100"),
        ("cosyvoice3", "hifigan.generator.in_channels=100", "generator.in_channels: 100 is not mel.num_mels 80"),
    ],
)
def test_parts_that_do_not_fit_are_refused(recipe: str, setting: str, complaint: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_config(CONF / f"{recipe}.yaml", [setting])
    (problem,) = caught.value.problems
    where, _, text = problem.text.partition(": ")
    assert where == "command line" or where.startswith(str(CONF / f"{recipe}.yaml:"))
    assert complaint in f"{problem.setting}: {text}"


def test_the_line_of_a_part_is_named() -> None:
    lines = (CONF / "cosyvoice2.yaml").read_text().splitlines()
    line = lines.index("  vocab_size: 6561") + 1
    with pytest.raises(CosyFlowError, match=rf"flow.vocab_size: .*cosyvoice2.yaml:{line}: "):
        load_config(CONF / "cosyvoice2.yaml", ["llm.speech_token_size=7000"])


def test_an_unknown_key_in_a_list_is_named(tmp_path: Path) -> None:
    text = (CONF / "cosyvoice2.yaml").read_text()
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace("{n_fft: 512,", "{n_fft: 512, hop: 50,"))
    with pytest.raises(CosyFlowError, match=r"resolutions\.2\.hop: .*: unknown key; allowed here: n_fft, "):
        load_config(path)
