"""The three spectral features of the CosyVoice models: mel, Whisper's log-mel, and Kaldi's filter bank."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional as F

from cosyflow.audio.caching import ordinary_tensors
from cosyflow.audio.mel_filters import kaldi_filters, slaney_filters
from cosyflow.errors import AudioError

FEATURE_SAMPLE_RATE = 16000  # of fbank and whisper_log_mel, Hz

WHISPER_N_FFT = 400
WHISPER_HOP = 160

FBANK_WINDOW = 400
FBANK_HOP = 160
FBANK_N_FFT = 512
FBANK_FMIN = 20.0
FBANK_PREEMPHASIS = 0.97
POVEY_EXPONENT = 0.85


@dataclass(frozen=True)
class MelSettings:
    """The mel spectrogram that a vocoder is trained on. Frequencies in Hz, sizes in samples."""

    sample_rate: int
    n_fft: int
    hop_size: int
    win_size: int
    num_mels: int = 80
    fmin: float = 0.0
    fmax: float | None = None  # half the sample rate


def pad_to_multiple(waveform: torch.Tensor, multiple: int) -> torch.Tensor:
    """Appends zeros to [..., samples] until the number of samples is a multiple of `multiple`."""
    return F.pad(waveform, (0, -waveform.shape[-1] % multiple))


def mel_spectrogram(waveform: torch.Tensor, settings: MelSettings) -> torch.Tensor:
    """Log of the mel-weighted magnitude spectrum, as HiFi-GAN (Kong et al., 2020) defines it.

    Args:
        waveform: [..., samples] at `settings.sample_rate`.
    Returns:
        [..., num_mels, samples // hop_size] natural logarithms, at least log(1e-5).
    Raises:
        AudioError: the waveform is shorter than the reflection at its ends.
    """
    padding = (settings.n_fft - settings.hop_size) // 2
    _require_samples(waveform, padding + 1)
    lead = waveform.shape[:-1]
    padded = F.pad(waveform.reshape(-1, 1, waveform.shape[-1]), (padding, padding), mode="reflect").squeeze(1)
    spectrum = torch.stft(
        padded,
        settings.n_fft,
        hop_length=settings.hop_size,
        win_length=settings.win_size,
        window=_hann(settings.win_size, waveform.device),
        center=False,
        return_complex=True,
    )  # [N, n_fft // 2 + 1, frames]
    magnitude = torch.sqrt(torch.view_as_real(spectrum).square().sum(-1) + 1e-9)
    filters = slaney_filters(
        settings.sample_rate, settings.n_fft, settings.num_mels, settings.fmin, settings.fmax, waveform.device
    )
    mel = torch.log(torch.clamp(filters @ magnitude, min=1e-5))
    return mel.reshape(*lead, *mel.shape[-2:])


def whisper_log_mel(waveform: torch.Tensor, num_mels: int = 128) -> torch.Tensor:
    """Whisper's input (Radford et al., 2022, section 2.2), without its padding to 30 seconds.

    Args:
        waveform: [samples] at 16 kHz.
    Returns:
        [num_mels, samples // 160], 100 frames a second; the values span at most 2 (8 decades / 4).
    Raises:
        AudioError: shorter than one window of 25 ms.
    """
    _require_samples(waveform, WHISPER_N_FFT)
    window = _hann(WHISPER_N_FFT, waveform.device)
    spectrum = torch.stft(waveform, WHISPER_N_FFT, hop_length=WHISPER_HOP, window=window, return_complex=True)
    power = spectrum[:, :-1].abs().square()  # [201, frames]
    filters = slaney_filters(FEATURE_SAMPLE_RATE, WHISPER_N_FFT, num_mels, 0.0, None, waveform.device)
    decades = torch.log10(torch.clamp(filters @ power, min=1e-10))
    decades = torch.maximum(decades, decades.max() - 8.0)
    return (decades + 4.0) / 4.0


def fbank(waveform: torch.Tensor, num_mels: int = 80) -> torch.Tensor:
    """Kaldi's log filter-bank energies: 25 ms every 10 ms, no dither, frames that do not fit at the end left out.

    Args:
        waveform: [samples] at 16 kHz, in [-1, 1].
    Returns:
        [1 + (samples - 400) // 160, num_mels] natural logarithms.
    Raises:
        AudioError: shorter than one window of 25 ms.
    """
    _require_samples(waveform, FBANK_WINDOW)
    frames = waveform.unfold(-1, FBANK_WINDOW, FBANK_HOP)  # [frames, 400]
    frames = frames - frames.mean(dim=-1, keepdim=True)
    previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=-1)
    frames = (frames - FBANK_PREEMPHASIS * previous) * _povey(FBANK_WINDOW, waveform.device)
    power = torch.fft.rfft(frames, n=FBANK_N_FFT).abs().square()  # [frames, 257]
    filters = kaldi_filters(FEATURE_SAMPLE_RATE, FBANK_N_FFT, num_mels, FBANK_FMIN, waveform.device)
    floor = torch.finfo(torch.float32).eps
    return torch.log(torch.clamp(power @ filters.T, min=floor))


def _require_samples(waveform: torch.Tensor, least: int) -> None:
    if waveform.shape[-1] < least:
        raise AudioError(f"{waveform.shape[-1]} samples are too short for the feature, which needs at least {least}")


@lru_cache(maxsize=16)
@ordinary_tensors
def _hann(length: int, device: torch.device) -> torch.Tensor:
    return torch.hann_window(length, device=device)


@lru_cache(maxsize=16)
@ordinary_tensors
def _povey(length: int, device: torch.device) -> torch.Tensor:
    """Kaldi's default window: a symmetric Hann window to the power of 0.85."""
    return torch.hann_window(length, periodic=False, device=device).pow(POVEY_EXPONENT)
