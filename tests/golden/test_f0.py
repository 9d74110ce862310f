"""f0 by Harvest gives the numbers of the reference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cosyflow.audio.f0 import harvest_f0
from cosyflow.audio.features import pad_to_multiple
from cosyflow.audio.speech import load_speech


@pytest.mark.golden_files("data/features_v[12].json")
def test_f0_of_every_file(golden_file: Path) -> None:
    info = json.loads(golden_file.read_text())
    rate, hop = info["mel"]["sampling_rate"], info["mel"]["hop_size"]
    expected = {
        name.removesuffix(".pitch_feat"): values
        for name, values in load_file(golden_file.with_suffix(".safetensors")).items()
        if name.endswith(".pitch_feat")
    }
    assert expected
    for name, f0 in expected.items():
        waveform = load_speech(str(golden_file.parent / "wav" / f"{name}.wav"), rate)
        if info["num_frames"] > 0:
            waveform = pad_to_multiple(waveform, info["num_frames"])
        measured = torch.from_numpy(harvest_f0(waveform, rate, hop))
        torch.testing.assert_close(measured, f0, atol=0.1, rtol=0.0)  # Hz
