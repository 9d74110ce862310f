"""The three spectral features of the CosyVoice models: mel, Whisper's log-mel, and Kaldi's filter bank.

Filters and windows are computed once and kept; the kept tensors must serve with and without gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import torch
from torch.nn import functional as F

from cosyflow.errors import AudioError

P = ParamSpec("P")
R = TypeVar("R")

FEATURE_SAMPLE_RATE = 16000  # of fbank and whisper_log_mel, Hz

WHISPER_N_FFT = 400
WHISPER_HOP = 160

FBANK_WINDOW = 400
FBANK_HOP = 160
FBANK_N_FFT = 512
FBANK_FMIN = 20.0
FBANK_PREEMPHASIS = 0.97
POVEY_EXPONENT = 0.85

# Slaney's Auditory Toolbox (1998): linear below 1 kHz, then 27 bands for each factor of 6.4
SLANEY_HZ_PER_MEL = 200 / 3
SLANEY_BREAK_HZ = 1000.0
SLANEY_BREAK_MEL = SLANEY_BREAK_HZ / SLANEY_HZ_PER_MEL
SLANEY_LOG_STEP = math.log(6.4) / 27

# O'Shaughnessy, Speech Communication (1987), as the HTK book and Kaldi write it
HTK_FACTOR = 1127.0
HTK_BREAK_HZ = 700.0


def ordinary_tensors(build: Callable[P, R]) -> Callable[P, R]:
    """Lets `build` make ordinary tensors even when it is first called within `torch.inference_mode`.

    A tensor made there could not be used where gradients are wanted later, as the mel loss of the vocoder does.
    """

    @wraps(build)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(False), torch.no_grad():
            return build(*args, **kwargs)

    return wrapper


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


@lru_cache(maxsize=64)
@ordinary_tensors
def slaney_filters(
    sample_rate: int, n_fft: int, num_mels: int, fmin: float, fmax: float | None, device: torch.device
) -> torch.Tensor:
    """Filters of unit area on Slaney's mel scale, as librosa makes them by default.

    Args:
        sample_rate: of the waveform, Hz.
        n_fft: length of the Fourier transform, samples.
        fmin, fmax: lowest and highest frequency, Hz; None is half the sample rate.
    Returns:
        float32 [num_mels, n_fft // 2 + 1].
    """
    bins = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)
    limits = torch.tensor([fmin, sample_rate / 2 if fmax is None else fmax], dtype=torch.float64)
    low, high = _hz_to_slaney(limits).tolist()
    corners = _slaney_to_hz(torch.linspace(low, high, num_mels + 2, dtype=torch.float64))  # [num_mels + 2]
    area = (corners[2:] - corners[:-2]) / 2
    return (_triangles(bins, corners) / area[:, None]).float().to(device)


@lru_cache(maxsize=64)
@ordinary_tensors
def kaldi_filters(sample_rate: int, n_fft: int, num_mels: int, fmin: float, device: torch.device) -> torch.Tensor:
    """Filters of unit height, triangular on the mel axis, from `fmin` Hz to half the sample rate, as Kaldi makes them.

    All in single precision, as Kaldi: in the narrow bands of low frequencies the rounding is seen in the features.
    Returns float32 [num_mels, n_fft // 2 + 1]; the highest bin has no weight.
    """
    bins = _hz_to_htk(sample_rate / n_fft * torch.arange(n_fft // 2 + 1))
    low, high = (HTK_FACTOR * math.log(1.0 + hz / HTK_BREAK_HZ) for hz in (fmin, sample_rate / 2))
    corners = low + (high - low) / (num_mels + 1) * torch.arange(num_mels + 2)
    filters = _triangles(bins, corners)
    filters[:, -1] = 0.0
    return filters.to(device)


def _triangles(positions: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """Triangle i rises from corner i to 1 at corner i+1 and falls to 0 at corner i+2: [num_mels, positions]."""
    left, peak, right = (corners[start : len(corners) - 2 + start, None] for start in range(3))
    rising = (positions - left) / (peak - left)
    falling = (right - positions) / (right - peak)
    return torch.minimum(rising, falling).clamp(min=0.0)


def _hz_to_slaney(hz: torch.Tensor) -> torch.Tensor:
    above = SLANEY_BREAK_MEL + torch.log(hz.clamp(min=SLANEY_BREAK_HZ) / SLANEY_BREAK_HZ) / SLANEY_LOG_STEP
    return torch.where(hz < SLANEY_BREAK_HZ, hz / SLANEY_HZ_PER_MEL, above)


def _slaney_to_hz(mel: torch.Tensor) -> torch.Tensor:
    above = SLANEY_BREAK_HZ * torch.exp((mel - SLANEY_BREAK_MEL) * SLANEY_LOG_STEP)
    return torch.where(mel < SLANEY_BREAK_MEL, mel * SLANEY_HZ_PER_MEL, above)


def _hz_to_htk(hz: torch.Tensor) -> torch.Tensor:
    return HTK_FACTOR * torch.log(1.0 + hz / HTK_BREAK_HZ)
