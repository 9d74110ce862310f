"""A real Whisper, from its packages, hears two utterances of eSpeak NG and one of noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosyflow.cli import main
from cosyflow.evaluation.listing import Entry, write_list
from cosyflow.standins import espeak
from tests.unit.evaluation.conftest import CONFIG, SMALLER

SAID = ("The harbour was quiet in the morning.", "We walked to the market and bought bread.")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not espeak.is_installed(), reason="speech is spoken by the optional espeakng-loader"),
]


def test_whisper_understands_speech_and_notices_a_prompt_that_is_none(
    tmp_path: Path, model_dirs: Callable[[int], Path]
) -> None:
    assert main(["judges", str(tmp_path / "judges")]) == 0
    (tmp_path / "ears.yaml").write_text(f"transcript: {tmp_path / 'judges' / 'whisper-base'}\n")
    spoken = espeak.speak([espeak.Order(text, "en-us", 50, 140) for text in SAID])
    for number, samples in enumerate(spoken):
        soundfile.write(tmp_path / f"{number}.wav", np.frombuffer(samples, np.int16), espeak.SAMPLE_RATE)
    soundfile.write(tmp_path / "noise.wav", 0.1 * np.random.default_rng(0).normal(size=32000), 16000)
    wavs = [str(tmp_path / f"{number}.wav") for number in range(2)]
    entries = [
        Entry("a", wavs[1], SAID[1], SAID[0], wavs[0]),
        Entry("b", str(tmp_path / "noise.wav"), SAID[0], SAID[1], wavs[1]),
    ]
    write_list(entries, str(tmp_path / "list.tsv"))
    settings = [word for setting in SMALLER for word in ("--set", setting)]
    places = ["--list", str(tmp_path / "list.tsv"), "--output_dir", str(tmp_path / "out")]
    more = [
        "--model_dir",
        str(model_dirs(0)),
        "--config",
        CONFIG,
        *settings,
        "--judges",
        str(tmp_path / "ears.yaml"),
        "--num_processes",
        "1",
    ]
    assert main(["evaluate", *places, *more]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["rows"]["recorded"]["wer"]["value"] < 0.3
    assert report["metrics"]["wer"]["value"] > 0.7, "random weights say nothing"
    (problem,) = report["problems"]
    assert problem.startswith(f"{tmp_path / 'noise.wav'}: its text is not what is heard in it")
    assert report["decision"]["outcome"] == "refuse"
