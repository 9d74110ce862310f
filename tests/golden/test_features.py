"""Decoding, resampling and spectral features give the numbers of the reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cosyflow.audio.features import MelSettings, mel_spectrogram, pad_to_multiple, whisper_log_mel
from cosyflow.audio.opener import open_audio
from cosyflow.audio.speech import resample
from tests.golden.rounding import assert_log_magnitudes_close

TOLERANCE = {"atol": 1e-4, "rtol": 0.0}


def mel_settings(mel: dict[str, Any]) -> MelSettings:
    names = {name: mel[name] for name in ("n_fft", "hop_size", "win_size", "num_mels", "fmin", "fmax")}
    return MelSettings(sample_rate=mel["sampling_rate"], **names)


@pytest.mark.golden_files("data/features_*.json")
def test_features_of_every_file(golden_file: Path) -> None:
    info = json.loads(golden_file.read_text())
    expected = load_file(golden_file.with_suffix(".safetensors"))
    settings = mel_settings(info["mel"])
    for name, facts in info["per_file"].items():
        waveform, sample_rate = open_audio(str(golden_file.parent / "wav" / f"{name}.wav"))
        # the reference lists the shape after its filter has averaged the channels
        waveform = waveform.mean(dim=0, keepdim=True)
        if "loaded" not in facts:
            assert facts["filter"] == "dropped"
            continue
        assert [list(waveform.shape), sample_rate] == facts["loaded"]
        torch.testing.assert_close(waveform[:, :64], expected[f"{name}.loaded_head"], **TOLERANCE)
        if "resampled_len" not in facts:
            continue
        waveform = resample(waveform, sample_rate, settings.sample_rate)
        waveform = waveform / waveform.abs().max().clamp(min=1.0)
        assert waveform.shape[-1] == facts["resampled_len"]
        speech = expected[f"{name}.speech"]
        torch.testing.assert_close(waveform[:, : speech.shape[-1]], speech, **TOLERANCE)

        if info["num_frames"] > 0:
            waveform = pad_to_multiple(waveform, info["num_frames"])
        assert waveform.shape[-1] == facts["speech_len_after_fbank"]
        mel = mel_spectrogram(waveform, settings).squeeze(0).T
        assert mel.shape[0] == facts["mel_frames"]
        speech_feat = expected[f"{name}.speech_feat"]
        head = mel[: len(speech_feat)]
        assert_log_magnitudes_close(head, speech_feat, log_magnitude=head, roundings=1)

        if "whisper_frames" in facts:
            whisper = whisper_log_mel(resample(waveform[0], settings.sample_rate, 16000)).T
            assert whisper.shape[0] == facts["whisper_frames"]
            if f"{name}.whisper_feat" in expected:
                whisper_feat = expected[f"{name}.whisper_feat"]
                torch.testing.assert_close(whisper[: len(whisper_feat)], whisper_feat, **TOLERANCE)
