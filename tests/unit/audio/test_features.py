"""Shapes, caches and limits of the features; their values are compared with the reference in tests/golden."""

from __future__ import annotations

import math

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.audio.features import MelSettings, fbank, mel_spectrogram, pad_to_multiple, whisper_log_mel
from cosyflow.audio.speech import resample
from cosyflow.errors import AudioError

COSYVOICE = MelSettings(sample_rate=22050, n_fft=1024, hop_size=256, win_size=1024, fmax=8000.0)
COSYVOICE2 = MelSettings(sample_rate=24000, n_fft=1920, hop_size=480, win_size=1920, fmax=8000.0)
COSYVOICE3 = MelSettings(sample_rate=24000, n_fft=1920, hop_size=480, win_size=1920)


def tone(hz: float, num_samples: int, sample_rate: int) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * hz * torch.arange(num_samples) / sample_rate)


@settings(max_examples=30, deadline=None)
@given(num_samples=st.integers(1000, 20000))
def test_numbers_of_frames(num_samples: int) -> None:
    noise = torch.randn(num_samples, generator=torch.Generator().manual_seed(0))
    assert mel_spectrogram(noise, COSYVOICE2).shape == (80, num_samples // 480)
    assert whisper_log_mel(noise).shape == (128, num_samples // 160)
    assert fbank(noise).shape == (1 + (num_samples - 400) // 160, 80)
    assert pad_to_multiple(noise, 960).shape[-1] == 960 * math.ceil(num_samples / 960)


def test_settings_do_not_share_filters() -> None:
    noise = torch.randn(24000, generator=torch.Generator().manual_seed(0))
    alone = {each: mel_spectrogram(noise, each) for each in (COSYVOICE, COSYVOICE2, COSYVOICE3)}
    for each, mel in alone.items():
        assert torch.equal(mel_spectrogram(noise, each), mel)
    assert not torch.allclose(alone[COSYVOICE2], alone[COSYVOICE3], atol=0.1)


def test_batch_and_single_waveform_agree() -> None:
    waveforms = torch.randn(3, 2, 9600, generator=torch.Generator().manual_seed(0))
    mels = mel_spectrogram(waveforms, COSYVOICE2)
    assert mels.shape == (3, 2, 80, 20)
    torch.testing.assert_close(mels[2, 1], mel_spectrogram(waveforms[2, 1], COSYVOICE2))


def test_filters_made_in_inference_mode_serve_for_gradients() -> None:
    unused = MelSettings(sample_rate=24000, n_fft=1920, hop_size=480, win_size=1200, fmax=7654.0)
    with torch.inference_mode():
        mel_spectrogram(torch.randn(4800), unused)
        resample(torch.randn(4800), 23456, 16000)
    waveform = torch.randn(4800, requires_grad=True)
    (mel_spectrogram(waveform, unused).sum() + resample(waveform, 23456, 16000).sum()).backward()
    assert waveform.grad is not None
    assert waveform.grad.abs().sum() > 0


def test_fbank_is_that_of_torchaudio() -> None:
    noise = 0.1 * torch.randn(1, 16000, generator=torch.Generator().manual_seed(0))
    expected = torchaudio.compliance.kaldi.fbank(noise, num_mel_bins=80, dither=0.0, sample_frequency=16000.0)
    torch.testing.assert_close(fbank(noise[0]), expected, atol=1e-4, rtol=0.0)


def test_a_higher_tone_is_in_a_higher_band() -> None:
    bands = [int(mel_spectrogram(tone(hz, 24000, 24000), COSYVOICE3).mean(dim=1).argmax()) for hz in (200, 1000, 5000)]
    assert bands == sorted(set(bands))


def test_resampling_keeps_a_tone_and_its_length() -> None:
    low, high = tone(440, 16000, 16000), tone(440, 24000, 24000)
    resampled = resample(low, 16000, 24000)
    assert resampled.shape == high.shape
    torch.testing.assert_close(resampled[1000:-1000], high[1000:-1000], atol=1e-3, rtol=0.0)
    assert resample(low, 16000, 16000) is low


@pytest.mark.parametrize("feature", [fbank, whisper_log_mel, lambda waveform: mel_spectrogram(waveform, COSYVOICE2)])
def test_too_short(feature: object) -> None:
    with pytest.raises(AudioError, match="100 samples are too short"):
        feature(torch.zeros(100))
