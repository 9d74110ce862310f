"""Discriminators by period (HiFi-GAN, arXiv 2010.05646) and by spectrogram resolution (UnivNet, arXiv 2106.07889)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from cosyflow.backends import lay_out_for_convolution
from cosyflow.config.vocoder import DiscriminatorConfig, SpectrogramResolution
from cosyflow.models.vocoder.convolution import weight_norm

SLOPE = 0.1  # of the leaky ReLU


class Judgement(NamedTuple):
    """What one discriminator says of B waveforms."""

    score: torch.Tensor
    """float32 [B, N]: 1 for real speech, 0 for generated."""
    features: list[torch.Tensor]
    """The output of each layer, the last being the score before it is flattened."""


class WeightNormConv2d(nn.Module):
    """A weight-normalised convolution over (time, period) with the keys `weight_g` and `weight_v`.

    The official period discriminators have these names, all else the parametrised ones; loading accepts both.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        plain = nn.Conv2d(in_channels, out_channels, (kernel_size, 1))
        assert plain.bias is not None  # noqa: S101
        self.bias = plain.bias
        self.weight_g = nn.Parameter(plain.weight.detach().flatten(1).norm(dim=1).view(-1, 1, 1, 1))
        self.weight_v = plain.weight
        self.stride = (stride, 1)
        self.padding = (kernel_size // 2, 0)
        self._register_load_state_dict_pre_hook(_accept_parametrised_names)  # type: ignore[no-untyped-call]

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, in, T, period] -> [B, out, T / stride, period]
        length = torch.linalg.vector_norm(self.weight_v, dim=(1, 2, 3), keepdim=True)
        weight = self.weight_v * (self.weight_g / length)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class PeriodDiscriminator(nn.Module):
    """Looks at every `period`-th sample together: the waveform is folded to [T / period, period]."""

    def __init__(self, period: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.period = period
        inputs = (1, *channels)
        self.convs = nn.ModuleList(
            WeightNormConv2d(inputs[layer], width, 5, stride=1 if layer == len(channels) - 1 else 3)
            for layer, width in enumerate(channels)
        )
        self.conv_post = WeightNormConv2d(channels[-1], 1, 3, stride=1)

    def forward(self, waveform: torch.Tensor) -> Judgement:  # [B, T]
        missing = -waveform.shape[1] % self.period
        hidden = waveform.unsqueeze(1)
        if missing:
            hidden = F.pad(hidden, (0, missing), mode="reflect")
        folded = hidden.view(len(waveform), 1, -1, self.period)  # [B, 1, T / period, period]
        return _judge(folded, self.convs, self.conv_post)


class SpectrogramDiscriminator(nn.Module):
    """Looks at the magnitudes of one short-time Fourier transform."""

    window: torch.Tensor

    def __init__(self, resolution: SpectrogramResolution, channels: int) -> None:
        super().__init__()
        self.resolution = resolution
        kernels = ((3, 9), (3, 9), (3, 9), (3, 9), (3, 3))
        frequency_strides = (1, 2, 2, 2, 1)
        self.discriminators = nn.ModuleList(
            weight_norm(
                nn.Conv2d(
                    channels if layer else 1, channels, kernel, (1, stride), padding=(kernel[0] // 2, kernel[1] // 2)
                )
            )
            for layer, (kernel, stride) in enumerate(zip(kernels, frequency_strides, strict=True))
        )
        self.out = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))
        self.register_buffer("window", torch.hann_window(resolution.win_size), persistent=False)

    def forward(self, waveform: torch.Tensor) -> Judgement:  # [B, T]
        spectrum = torch.stft(
            waveform.float(),
            self.resolution.n_fft,
            self.resolution.hop_size,
            self.resolution.win_size,
            window=self.window,
            return_complex=True,
        )
        magnitude = spectrum.abs().transpose(1, 2).unsqueeze(1)  # [B, 1, frames, bins]
        return _judge(lay_out_for_convolution(magnitude), self.discriminators, self.out)


class MultiPeriodDiscriminator(nn.Module):
    def __init__(self, periods: tuple[int, ...], channels: tuple[int, ...]) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(PeriodDiscriminator(period, channels) for period in periods)

    def forward(self, waveform: torch.Tensor) -> list[Judgement]:
        return [discriminator(waveform) for discriminator in self.discriminators]


class MultiResolutionDiscriminator(nn.Module):
    def __init__(self, resolutions: tuple[SpectrogramResolution, ...], channels: int) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            SpectrogramDiscriminator(resolution, channels) for resolution in resolutions
        )

    def forward(self, waveform: torch.Tensor) -> list[Judgement]:
        return [discriminator(waveform) for discriminator in self.discriminators]


class Discriminator(nn.Module):
    """All discriminators, the period ones first; one call may judge real and generated speech stacked in one batch."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.mpd = MultiPeriodDiscriminator(config.periods, config.period_channels)
        self.mrd = MultiResolutionDiscriminator(config.resolutions, config.spectrogram_channels)

    def forward(self, waveform: torch.Tensor) -> list[Judgement]:
        """waveform [B, T]; T must exceed half of the longest transform."""
        judgements: list[Judgement] = self.mpd(waveform) + self.mrd(waveform)
        return judgements


def _judge(hidden: torch.Tensor, layers: nn.ModuleList, last: nn.Module) -> Judgement:
    features = []
    for layer in layers:
        hidden = F.leaky_relu(layer(hidden), SLOPE)
        features.append(hidden)
    score = last(hidden)
    return Judgement(score.flatten(1).float(), [*features, score])


def _accept_parametrised_names(state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    for ours, other in (("weight_g", "original0"), ("weight_v", "original1")):
        parametrised = f"{prefix}parametrizations.weight.{other}"
        if parametrised in state_dict:
            state_dict[prefix + ours] = state_dict.pop(parametrised)
