"""The official data path and training step of the CosyVoice 2 vocoder, from a checkout given by path."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import soundfile
import torch

from cosyflow.config.vocoder import HiFiGanConfig

WINDOW_SAMPLES = 24480
LEARNING_RATE = 2e-4
GRAD_CLIP = 5.0


def import_official(checkout: Path) -> None:
    sys.path[:0] = [str(checkout), str(checkout / "third_party" / "Matcha-TTS")]
    if find_spec("torchcodec") is None:  # newer torchaudio reads files through it only
        import torchaudio

        torchaudio.load = _load


def _load(stream: io.BytesIO) -> tuple[torch.Tensor, int]:
    samples, rate = soundfile.read(stream, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T), rate


def batches(shards: list[str], tokenizer: str, config: HiFiGanConfig, max_frames: int) -> Iterator[dict[str, Any]]:
    """One pass of the official pipeline for vocoder training, its steps and settings in the official order.

    A batch has at most `max_frames` mel frames, of which the official recipe says 2,000.
    """
    from cosyvoice.dataset import processor
    from cosyvoice.tokenizer.tokenizer import get_qwen_tokenizer

    mel = config.loss.mel_spec_transform[0]
    rate, hop = mel.sampling_rate, mel.hop_size
    build_tokenizer = functools.partial(get_qwen_tokenizer, token_path=tokenizer, skip_special_tokens=True)
    data: Iterator[dict[str, Any]] = processor.parquet_opener({"src": shard} for shard in shards)
    data = processor.tokenize(data, build_tokenizer, "all")
    data = processor.filter(data, max_length=6000, min_length=100, token_max_length=200, token_min_length=1)
    data = processor.resample(data, rate)
    data = processor.truncate(data, WINDOW_SAMPLES)
    data = processor.compute_fbank(data, functools.partial(_mel(config), fmax=8000), num_frames=2 * hop)
    data = processor.compute_f0(data, rate, hop)
    data = processor.parse_embedding(data, normalize=True)
    data = processor.shuffle(data, 1000)
    data = processor.sort(data, 500)
    data = processor.batch(data, "dynamic", max_frames_in_batch=max_frames)
    return processor.padding(data, use_spk_embedding=False, gan=True)


def _mel(config: HiFiGanConfig) -> Callable[..., torch.Tensor]:
    from matcha.utils.audio import mel_spectrogram

    mel = config.loss.mel_spec_transform[0]
    sizes = {"n_fft": mel.n_fft, "num_mels": mel.num_mels, "hop_size": mel.hop_size, "win_size": mel.win_size}
    return functools.partial(
        mel_spectrogram, **sizes, sampling_rate=mel.sampling_rate, fmin=mel.fmin, fmax=mel.fmax, center=False
    )


def build(config: HiFiGanConfig) -> torch.nn.Module:
    """The official training model, generator of CosyVoice 2 and discriminators, with the sizes of `config`.

    The official discriminators have the released sizes written into their code; their layers are replaced by layers of
    the same kind with other channels.
    """
    from cosyvoice.hifigan import discriminator
    from cosyvoice.hifigan.f0_predictor import ConvRNNF0Predictor
    from cosyvoice.hifigan.generator import HiFTGenerator
    from cosyvoice.hifigan.hifigan import HiFiGan
    from matcha.hifigan import models

    sizes = config.generator
    generator = HiFTGenerator(
        base_channels=sizes.base_channels,
        sampling_rate=sizes.sampling_rate,
        upsample_rates=list(sizes.upsample_rates),
        upsample_kernel_sizes=list(sizes.upsample_kernel_sizes),
        source_resblock_kernel_sizes=list(sizes.source_resblock_kernel_sizes),
        source_resblock_dilation_sizes=[list(dilations) for dilations in sizes.source_resblock_dilation_sizes],
        f0_predictor=ConvRNNF0Predictor(num_class=1, in_channels=80, cond_channels=sizes.f0_channels),
    )
    by_period = models.MultiPeriodDiscriminator()
    by_period.discriminators = torch.nn.ModuleList(map(models.DiscriminatorP, config.discriminator.periods))
    for each in by_period.discriminators:
        widths = config.discriminator.period_channels
        each.convs, each.conv_post = _resize([*each.convs, each.conv_post], widths, models.weight_norm)
    by_resolution = discriminator.MultiResSpecDiscriminator()
    by_resolution.discriminators = torch.nn.ModuleList(
        discriminator.SpecDiscriminator(resolution.n_fft, resolution.hop_size, resolution.win_size)
        for resolution in config.discriminator.resolutions
    )
    for each in by_resolution.discriminators:
        widths = (config.discriminator.spectrogram_channels,) * len(each.discriminators)
        layers = [*each.discriminators, each.out]
        each.discriminators, each.out = _resize(layers, widths, discriminator.weight_norm)
    return HiFiGan(generator, discriminator.MultipleDiscriminator(by_period, by_resolution), [_mel(config)])


def _resize(
    layers: list[torch.nn.Conv2d], widths: tuple[int, ...], weight_norm: Callable[[torch.nn.Module], torch.nn.Module]
) -> tuple[torch.nn.ModuleList, torch.nn.Module]:
    """The last `len(widths)` layers and the one behind them, as convolutions with so many output channels."""
    inputs, outputs = (1, *widths), (*widths, 1)
    resized = [
        weight_norm(torch.nn.Conv2d(inputs[place], width, layer.kernel_size, layer.stride, layer.padding))
        for place, (width, layer) in enumerate(zip(outputs, layers[-len(outputs) :], strict=True))
    ]
    return torch.nn.ModuleList(resized[:-1]), resized[-1]


def build_step(
    config: HiFiGanConfig, weights: dict[str, torch.Tensor], device: torch.device
) -> Callable[[dict[str, Any]], None]:
    """Both turns of the official loop on a batch with speech_feat [B, F, 80], speech [B, T] and pitch_feat [B, F].

    Training starts from `weights`, which must be those of a model of exactly the same sizes.
    """
    model = build(config)
    model.load_state_dict(weights, strict=True)
    model = model.to(device).train()
    optimizers = {
        turn: torch.optim.Adam(getattr(model, turn).parameters(), lr=LEARNING_RATE)
        for turn in ("discriminator", "generator")
    }

    def step(batch: dict[str, Any]) -> None:
        for turn, optimizer in optimizers.items():
            model({**batch, "turn": turn}, device)["loss"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
            optimizer.step()
            for each in optimizers.values():
                each.zero_grad()

    return step
