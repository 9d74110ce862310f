"""Settings of the vocoder (HiFT generator), of its discriminators and of the losses between them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

SAMPLE_PHASE_RATE = 22050


@dataclass(frozen=True)
class IstftParams:
    """The short Fourier transform at the end of the generator, in samples."""

    n_fft: int = 16
    hop_len: int = 4

    def __post_init__(self) -> None:
        if self.n_fft < 2 or self.n_fft % 2:
            raise ValueError(f"n_fft: must be even and at least 2, not {self.n_fft}")
        if not 0 < self.hop_len < self.n_fft:
            raise ValueError(f"hop_len: must lie between 1 and n_fft - 1, not {self.hop_len}")


@dataclass(frozen=True)
class HiFTConfig:
    """The generator, mel frames to waveform; `cosyvoice1()`, `cosyvoice2()`, `cosyvoice3()` are the released ones."""

    in_channels: int = 80
    """Mel bins."""
    base_channels: int = 512
    """Channels after the first convolution; each up-sampling stage halves them."""
    nb_harmonics: int = 8
    """Sines above the fundamental in the excitation."""
    sampling_rate: int = 24000
    """Hz. At 22050 (CosyVoice 1) the phase of the excitation is summed by sample, at any other rate by mel frame."""
    nsf_alpha: float = 0.1
    """Amplitude of each sine; a third of it is the deviation of the noise where there is no voice."""
    nsf_sigma: float = 0.003
    """Deviation of the noise that is added to voiced samples."""
    nsf_voiced_threshold: float = 10
    """Hz; a frame above it is voiced."""
    upsample_rates: tuple[int, ...] = (8, 5, 3)
    """Their product times the hop of the inverse transform is the number of samples in a mel frame."""
    upsample_kernel_sizes: tuple[int, ...] = (16, 11, 7)
    istft_params: IstftParams = field(default_factory=IstftParams)
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    source_resblock_kernel_sizes: tuple[int, ...] = (7, 7, 11)
    source_resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    lrelu_slope: float = 0.1
    audio_limit: float = 0.99
    """Samples are clamped to plus and minus this."""
    causal: bool = False
    """CosyVoice 3: no convolution sees the future except the look-ahead of the first one and of the f0 predictor."""
    conv_pre_look_right: int = 4
    """Mel frames that the first convolution of a causal generator sees ahead."""
    f0_channels: int = 512
    """Channels of the f0 predictor."""

    def __post_init__(self) -> None:
        for name in ("in_channels", "base_channels", "sampling_rate", "f0_channels", "conv_pre_look_right"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, not {getattr(self, name)}")
        if self.nb_harmonics < 0:
            raise ValueError(f"nb_harmonics: must not be negative, not {self.nb_harmonics}")
        self._check_stages()
        if len(self.resblock_kernel_sizes) != len(self.resblock_dilation_sizes):
            raise ValueError("resblock_dilation_sizes: one tuple for each of resblock_kernel_sizes")
        if any(size % 2 == 0 for size in self.resblock_kernel_sizes + self.source_resblock_kernel_sizes):
            raise ValueError("resblock_kernel_sizes, source_resblock_kernel_sizes: must be odd")

    def _check_stages(self) -> None:
        stages = len(self.upsample_rates)
        if stages == 0 or min(self.upsample_rates) < 1:
            raise ValueError("upsample_rates: at least one stage, each rate at least 1")
        for name in ("upsample_kernel_sizes", "source_resblock_kernel_sizes", "source_resblock_dilation_sizes"):
            if len(getattr(self, name)) != stages:
                raise ValueError(f"{name}: must have {stages} entries, one for each of upsample_rates")
        if self.base_channels % 2**stages:
            raise ValueError(f"base_channels: must be divisible by {2**stages}, as {stages} stages halve them")
        if self.samples_per_frame < 3:
            raise ValueError("upsample_rates: a mel frame must have at least 3 samples")
        for rate, kernel in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True):
            if not self.causal and (kernel < rate or (kernel - rate) % 2):
                raise ValueError(f"upsample_kernel_sizes: {kernel} must exceed its rate {rate} by an even number")

    @property
    def samples_per_frame(self) -> int:
        return math.prod(self.upsample_rates) * self.istft_params.hop_len

    @property
    def excitation_phase(self) -> Literal["sample", "frame", "frame_constant"]:
        """How the phase of the sines is summed: by sample, by frame and interpolated, or by frame and held."""
        if self.sampling_rate == SAMPLE_PHASE_RATE:
            return "sample"
        return "frame_constant" if self.causal else "frame"


def cosyvoice1() -> HiFTConfig:
    return HiFTConfig(
        sampling_rate=22050,
        upsample_rates=(8, 8),
        upsample_kernel_sizes=(16, 16),
        source_resblock_kernel_sizes=(7, 11),
        source_resblock_dilation_sizes=((1, 3, 5), (1, 3, 5)),
    )


def cosyvoice2() -> HiFTConfig:
    return HiFTConfig()


def cosyvoice3() -> HiFTConfig:
    return HiFTConfig(causal=True)


@dataclass(frozen=True)
class SpectrogramResolution:
    """One short-time Fourier transform of the multi-resolution discriminator, in samples."""

    n_fft: int
    hop_size: int
    win_size: int

    def __post_init__(self) -> None:
        if not 0 < self.hop_size <= self.win_size <= self.n_fft:
            raise ValueError("hop_size, win_size, n_fft: must be positive and in ascending order")


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The multi-period discriminators of HiFi-GAN and the multi-resolution spectrogram discriminators."""

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    """Output channels of the convolutions; all but the last have stride 3."""
    resolutions: tuple[SpectrogramResolution, ...] = (
        SpectrogramResolution(1024, 120, 600),
        SpectrogramResolution(2048, 240, 1200),
        SpectrogramResolution(512, 50, 240),
    )
    spectrogram_channels: int = 32

    def __post_init__(self) -> None:
        if not self.periods and not self.resolutions:
            raise ValueError("periods, resolutions: at least one discriminator is needed")
        if any(period < 1 for period in self.periods):
            raise ValueError("periods: each must be at least 1 sample")
        if not self.period_channels or min(self.period_channels) < 1:
            raise ValueError("period_channels: at least one convolution, each with at least one channel")
        if self.spectrogram_channels < 1:
            raise ValueError(f"spectrogram_channels: must be at least 1, not {self.spectrogram_channels}")


@dataclass(frozen=True)
class MelLossConfig:
    """The mel spectrogram in which real and generated speech are compared; lengths in samples, frequencies in Hz."""

    n_fft: int = 1920
    num_mels: int = 80
    sampling_rate: int = 24000
    hop_size: int = 480
    win_size: int = 1920
    fmin: float = 0.0
    fmax: float | None = None
    """None: half of the sampling rate."""

    def __post_init__(self) -> None:
        if not 0 < self.hop_size <= self.win_size <= self.n_fft:
            raise ValueError("hop_size, win_size, n_fft: must be positive and in ascending order")
        if not 0 <= self.fmin < (self.fmax or self.sampling_rate / 2) <= self.sampling_rate / 2:
            raise ValueError("fmin, fmax: must be ascending and at most half of sampling_rate")


@dataclass(frozen=True)
class GanLossConfig:
    """Weights of the losses; the adversarial loss has weight 1."""

    mel_spec_transform: tuple[MelLossConfig, ...] = (MelLossConfig(),)
    multi_mel_spectral_recon_loss_weight: float = 45.0
    feat_match_loss_weight: float = 2.0
    tpr_loss_weight: float = 1.0
    tpr_loss_tau: float = 0.04
    """The relativistic loss is truncated at this value."""
    f0_loss_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.tpr_loss_tau <= 0:
            raise ValueError(f"tpr_loss_tau: must be positive, not {self.tpr_loss_tau}")


@dataclass(frozen=True)
class HiFiGanConfig:
    """Everything that vocoder training builds."""

    generator: HiFTConfig = field(default_factory=HiFTConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    loss: GanLossConfig = field(default_factory=GanLossConfig)

    def __post_init__(self) -> None:
        for transform in self.loss.mel_spec_transform:
            if transform.sampling_rate != self.generator.sampling_rate:
                raise ValueError(
                    f"mel_spec_transform: sampling_rate {transform.sampling_rate} Hz differs from the generator's "
                    f"{self.generator.sampling_rate} Hz"
                )
