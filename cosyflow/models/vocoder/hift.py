"""The HiFT generator: a source-filter vocoder that ends in an inverse Fourier transform (arXiv 2309.09493)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from cosyflow.config.vocoder import HiFTConfig
from cosyflow.models.vocoder.convolution import (
    NearestUpsampleConv1d,
    PaddedConv1d,
    remove_weight_norm,
    same_length_conv,
    weight_norm,
)
from cosyflow.models.vocoder.source import FixedNoise, HarmonicSource, SourceNoise

CAUSAL_LOOK_AHEAD = 3  # mel frames
F0_LAYERS = 5
INITIAL_F0 = 100.0  # Hz; from 0 Hz an untrained predictor needs hundreds of steps to reach the range of a voice
INITIAL_GAIN = 30.0  # of the last layer: weights that move by the learning rate take long from units to tens of Hz


class F0Predictor(nn.Module):
    """Five convolutions and a linear layer; the causal form sees `look_ahead` mel frames of the future."""

    def __init__(self, mel_bins: int, channels: int, *, causal: bool) -> None:
        super().__init__()
        self.look_ahead = CAUSAL_LOOK_AHEAD if causal else 0
        first: PaddedConv1d
        if causal:
            first = weight_norm(
                PaddedConv1d(mel_bins, channels, CAUSAL_LOOK_AHEAD + 1, left=0, right=CAUSAL_LOOK_AHEAD)
            )
        else:
            first = same_length_conv(mel_bins, channels, 3, causal=False)
        layers: list[nn.Module] = [first, nn.ELU()]
        for _ in range(F0_LAYERS - 1):
            layers += [same_length_conv(channels, channels, 3, causal=causal), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1)
        nn.init.constant_(self.classifier.bias, INITIAL_F0)
        with torch.no_grad():
            self.classifier.weight.mul_(INITIAL_GAIN)

    def forward(self, mel: torch.Tensor, final: bool = True) -> torch.Tensor:
        """mel [B, bins, F] -> f0 [B, F] in Hz; with `final=False` the last `look_ahead` frames are only context.

        Autocast does not apply: bfloat16 would round f0 to 1 Hz.
        """
        first, *others = self.condnet
        with torch.autocast(mel.device.type, enabled=False):
            hidden = first(mel, final)
            for layer in others:
                hidden = layer(hidden)
            f0: torch.Tensor = self.classifier(hidden.transpose(1, 2)).squeeze(-1).abs()
        return f0


MAX_MAGNITUDE = 100.0
OUTPUT_SLOPE = 0.01  # of the leaky ReLU before the last convolution


class GeneratedSpeech(NamedTuple):
    """What the generator makes of a mel spectrogram of F frames."""

    waveform: torch.Tensor
    """[B, F * samples_per_frame], float32 in [-audio_limit, audio_limit]."""
    f0: torch.Tensor
    """[B, F] in Hz."""


class VocodedSpeech(NamedTuple):
    """A waveform, and the excitation it was made from, which the next chunk of a stream takes over."""

    waveform: torch.Tensor
    """[B, T]."""
    source: torch.Tensor
    """[B, 1, T], or longer where the end of the input only served as look-ahead."""


class Snake(nn.Module):
    """x + sin²(ax) / a with a learned a per channel (Liu et al., arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, C, T] -> [B, C, T]
        alpha = self.alpha.unsqueeze(-1)
        return x + torch.sin(x * alpha).square() / (alpha + 1e-9)


class ResidualBlock(nn.Module):
    """For each dilation: Snake, dilated convolution, Snake, convolution, added to the input."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...], causal: bool) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            same_length_conv(channels, channels, kernel_size, dilation=dilation, causal=causal)
            for dilation in dilations
        )
        self.convs2 = nn.ModuleList(same_length_conv(channels, channels, kernel_size, causal=causal) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [B, C, T] -> [B, C, T]
        stages = zip(self.activations1, self.convs1, self.activations2, self.convs2, strict=True)
        for activation1, conv1, activation2, conv2 in stages:
            x = x + conv2(activation2(conv1(activation1(x))))
        return x


class HiFTGenerator(nn.Module):
    """mel [B, bins, F] -> waveform [B, F * samples_per_frame]; f0, excitation and noise are its own or given."""

    stft_window: torch.Tensor

    def __init__(self, config: HiFTConfig) -> None:
        super().__init__()
        self.config = config
        bins = config.istft_params.n_fft + 2  # real and imaginary, or magnitude and phase
        channels = [config.base_channels // 2**stage for stage in range(len(config.upsample_rates) + 1)]

        self.m_source = HarmonicSource(config)
        self.conv_pre = _input_convolution(config)
        self.ups = nn.ModuleList(
            _upsampling(channels[stage], channels[stage + 1], kernel, rate, config.causal)
            for stage, (rate, kernel) in enumerate(
                zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)
            )
        )
        self.source_downs = nn.ModuleList(
            _source_downsampling(
                bins, channels[stage + 1], math.prod(config.upsample_rates[stage + 1 :]), config.causal
            )
            for stage in range(len(config.upsample_rates))
        )
        self.source_resblocks = nn.ModuleList(
            ResidualBlock(channels[stage + 1], kernel, dilations, config.causal)
            for stage, (kernel, dilations) in enumerate(
                zip(config.source_resblock_kernel_sizes, config.source_resblock_dilation_sizes, strict=True)
            )
        )
        self.resblocks = nn.ModuleList(
            ResidualBlock(width, kernel, dilations, config.causal)
            for width in channels[1:]
            for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
        )
        self.conv_post = same_length_conv(channels[-1], bins, 7, causal=config.causal)
        self.f0_predictor = F0Predictor(config.in_channels, config.f0_channels, causal=config.causal)
        self.fixed_noise = FixedNoise(config.nb_harmonics + 1)
        self.register_buffer("stft_window", torch.hann_window(config.istft_params.n_fft), persistent=False)

    def forward(
        self, mel: torch.Tensor, noise: SourceNoise | None = None, rng: torch.Generator | None = None
    ) -> GeneratedSpeech:
        """For training. `noise` is drawn from `rng` when it is not given."""
        f0 = self.f0_predictor(mel)
        if noise is None:
            noise = self.m_source.draw_noise(mel.shape[0], mel.shape[2], mel.device, rng)
        return GeneratedSpeech(self.filter(mel, self.m_source(f0, noise)), f0)

    @torch.inference_mode()
    def inference(
        self,
        mel: torch.Tensor,
        *,
        final: bool = True,
        source_cache: torch.Tensor | None = None,
        noise: SourceNoise | None = None,
        rng: torch.Generator | None = None,
    ) -> VocodedSpeech:
        """mel [B, bins, F] -> waveform and excitation; `noise` is drawn from `rng` when it is not given.

        A causal generator gives the samples of a prefix of an utterance exactly as it gives them for the whole:
        `final=False` says that the last `frames_held_back` frames are look-ahead. It draws no noise without `rng`, its
        noise is then constant. For another generator, `source_cache` [B, 1, samples] replaces the start of the
        excitation, so that two chunks join without a click.
        """
        if not final and not self.config.causal:
            raise ValueError("final=False: only a causal generator can vocode a part of an utterance")
        if not final and mel.shape[2] <= self.frames_held_back:
            raise ValueError(f"{mel.shape[2]} mel frames: a part needs more than {self.frames_held_back}")
        f0 = self._precise_f0(mel, final) if self.config.causal else self.f0_predictor(mel)
        frames = f0.shape[1]
        if noise is None and rng is None and self.config.causal:
            noise = SourceNoise(self.fixed_noise.take(frames * self.config.samples_per_frame, mel.device))
        elif noise is None:
            noise = self.m_source.draw_noise(mel.shape[0], frames, mel.device, rng)
        source = self.m_source(f0, noise)
        if source_cache is not None:
            source[:, :, : source_cache.shape[2]] = source_cache
        return VocodedSpeech(self.filter(mel[:, :, :frames], source, final), source)

    @property
    def frames_held_back(self) -> int:
        """Mel frames at the end of a part of an utterance for which no samples come out."""
        return self.f0_predictor.look_ahead + self.config.conv_pre_look_right + 1 if self.config.causal else 0

    def _precise_f0(self, mel: torch.Tensor, final: bool) -> torch.Tensor:
        """f0 by float64 arithmetic: its sum over time is a phase, which parts and whole must agree on."""
        weights = {name: value.double() for name, value in self.f0_predictor.state_dict().items()}
        f0: torch.Tensor = torch.func.functional_call(self.f0_predictor, weights, (mel.double(), final))
        return f0.float()

    def filter(self, mel: torch.Tensor, source: torch.Tensor, final: bool = True) -> torch.Tensor:
        """mel [B, bins, F], excitation [B, 1, F * samples_per_frame] -> waveform [B, F * samples_per_frame].

        With `final=False` the last `conv_pre_look_right` frames are look-ahead, and the frame before them is dropped
        too: the inverse transform of its last samples needs the next frame.
        """
        spectrum = self._source_spectrum(source)
        if not final:
            spectrum = spectrum[:, :, : -self.config.conv_pre_look_right * math.prod(self.config.upsample_rates)]
        hidden = self.conv_pre(mel, final)
        blocks_per_stage = len(self.config.resblock_kernel_sizes)
        last = len(self.ups) - 1
        for stage, upsample in enumerate(self.ups):
            hidden = upsample(F.leaky_relu(hidden, self.config.lrelu_slope))
            if stage == last:
                hidden = F.pad(hidden, (1, 0), mode="reflect")  # as many frames as the centred spectrum has
            hidden = hidden + self.source_resblocks[stage](self.source_downs[stage](spectrum))
            blocks = self.resblocks[stage * blocks_per_stage : (stage + 1) * blocks_per_stage]
            hidden = sum((block(hidden) for block in blocks[1:]), start=blocks[0](hidden)) / blocks_per_stage
        waveform = self._inverse_transform(self.conv_post(F.leaky_relu(hidden, OUTPUT_SLOPE)))
        if not final:
            waveform = waveform[:, : -self.config.samples_per_frame]
        return waveform.clamp(-self.config.audio_limit, self.config.audio_limit)

    def remove_weight_norm(self) -> None:
        """Folds the gains into the weights for inference. The state dict then holds plain `weight` keys."""
        remove_weight_norm(self)

    def _source_spectrum(self, source: torch.Tensor) -> torch.Tensor:
        """[B, 1, T] -> [B, n_fft + 2, T / hop_len + 1]: the real parts above the imaginary ones."""
        params = self.config.istft_params
        spectrum = torch.stft(
            source.squeeze(1).float(), params.n_fft, params.hop_len, window=self.stft_window, return_complex=True
        )
        return torch.cat([spectrum.real, spectrum.imag], dim=1)

    def _inverse_transform(self, output: torch.Tensor) -> torch.Tensor:
        """[B, n_fft + 2, N] -> [B, (N - 1) * hop_len]: log magnitudes above phases, whose sine is the angle."""
        params = self.config.istft_params
        log_magnitude, phase = output.float().chunk(2, dim=1)
        magnitude = log_magnitude.exp().clamp(max=MAX_MAGNITUDE)
        spectrum = torch.polar(magnitude, torch.sin(phase))
        return torch.istft(spectrum, params.n_fft, params.hop_len, window=self.stft_window)


def _input_convolution(config: HiFTConfig) -> PaddedConv1d:
    if not config.causal:
        return same_length_conv(config.in_channels, config.base_channels, 7, causal=False)
    ahead = config.conv_pre_look_right
    return weight_norm(PaddedConv1d(config.in_channels, config.base_channels, ahead + 1, left=0, right=ahead))


def _upsampling(in_channels: int, out_channels: int, kernel_size: int, rate: int, causal: bool) -> nn.Module:
    if causal:
        return weight_norm(NearestUpsampleConv1d(in_channels, out_channels, kernel_size, rate))
    padding = (kernel_size - rate) // 2
    return weight_norm(nn.ConvTranspose1d(in_channels, out_channels, kernel_size, rate, padding=padding))


def _source_downsampling(in_channels: int, out_channels: int, rate: int, causal: bool) -> PaddedConv1d:
    """Brings the spectrum of the excitation to the frame rate of a stage."""
    if rate == 1:
        return PaddedConv1d(in_channels, out_channels, 1, left=0, right=0)
    left, right = (rate - 1, 0) if causal else (rate // 2, rate // 2)
    return PaddedConv1d(in_channels, out_channels, 2 * rate, left=left, right=right, stride=rate)
