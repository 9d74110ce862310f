"""The inputs of the speaker-embedding model and of the speech tokenizer are those of the reference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cosyflow.audio.features import FEATURE_SAMPLE_RATE, fbank
from cosyflow.audio.opener import open_audio
from cosyflow.audio.speech import resample
from cosyflow.extract.inputs import speaker_fbank, tokenizer_log_mel
from tests.golden.rounding import assert_log_magnitudes_close


@pytest.mark.golden_files("data/extract_features.json")
def test_model_inputs_of_every_file(golden_file: Path) -> None:
    expected = load_file(golden_file.with_suffix(".safetensors"))
    for name, facts in json.loads(golden_file.read_text())["per_file"].items():
        wav = str(golden_file.parent / "wav" / f"{name}.wav")
        features = speaker_fbank(wav)
        assert [1, *features.shape] == facts["campplus_shape"]
        head = expected[f"{name}.campplus_feat"]
        waveform, sample_rate = open_audio(wav)
        log_energy = fbank(resample(waveform[0], sample_rate, FEATURE_SAMPLE_RATE))[: len(head)]
        # the loudest band rounds before the pre-emphasis, and above 4 kHz an 8 kHz recording has its rounding alone
        assert_log_magnitudes_close(features[: len(head)], head, log_magnitude=log_energy / 2, roundings=8)
        total = features.double().sum(dim=0)
        torch.testing.assert_close(total, expected[f"{name}.campplus_feat_sum"], atol=1e-2, rtol=0.0)

        log_mel = tokenizer_log_mel(wav)
        assert [1, *log_mel.shape] == facts["tokenizer_shape"]
        assert facts["tokenizer_len_input"] == [log_mel.shape[1]]
        head = expected[f"{name}.tokenizer_feat"][0]
        torch.testing.assert_close(log_mel[:, : head.shape[1]], head, atol=1e-4, rtol=0.0)
        total = log_mel.double().sum(dim=1)
        torch.testing.assert_close(total, expected[f"{name}.tokenizer_feat_sum"][0], atol=1e-2, rtol=0.0)
