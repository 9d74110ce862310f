"""The official data path and training step of the CosyVoice 2 vocoder, from a checkout given by path."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import soundfile
import torch

from cosyflow.config.vocoder import HiFiGanConfig

WINDOW_SAMPLES = 24480
MAX_FRAMES = 2000
GRAD_CLIP = 5.0


def import_official(checkout: Path) -> None:
    sys.path[:0] = [str(checkout), str(checkout / "third_party" / "Matcha-TTS")]
    if find_spec("torchcodec") is None:  # newer torchaudio reads files through it only
        import torchaudio

        torchaudio.load = _load


def _load(stream: io.BytesIO) -> tuple[torch.Tensor, int]:
    samples, rate = soundfile.read(stream, dtype="float32", always_2d=True)
    return torch.from_numpy(samples.T), rate


def batches(shards: list[str], tokenizer: str, config: HiFiGanConfig) -> Iterator[dict]:
    """One pass of the official pipeline for vocoder training, its steps and settings in the official order."""
    from cosyvoice.dataset import processor
    from cosyvoice.tokenizer.tokenizer import get_qwen_tokenizer

    mel = config.loss.mel_spec_transform[0]
    rate, hop = mel.sampling_rate, mel.hop_size
    build_tokenizer = functools.partial(get_qwen_tokenizer, token_path=tokenizer, skip_special_tokens=True)
    data: Iterator[dict] = processor.parquet_opener({"src": shard} for shard in shards)
    data = processor.tokenize(data, build_tokenizer, "all")
    data = processor.filter(data, max_length=6000, min_length=100, token_max_length=200, token_min_length=1)
    data = processor.resample(data, rate)
    data = processor.truncate(data, WINDOW_SAMPLES)
    data = processor.compute_fbank(data, functools.partial(_mel(config), fmax=8000), num_frames=2 * hop)
    data = processor.compute_f0(data, rate, hop)
    data = processor.parse_embedding(data, normalize=True)
    data = processor.shuffle(data, 1000)
    data = processor.sort(data, 500)
    data = processor.batch(data, "dynamic", max_frames_in_batch=MAX_FRAMES)
    return processor.padding(data, use_spk_embedding=False, gan=True)


def _mel(config: HiFiGanConfig) -> Callable[..., torch.Tensor]:
    from matcha.utils.audio import mel_spectrogram

    mel = config.loss.mel_spec_transform[0]
    sizes = {"n_fft": mel.n_fft, "num_mels": mel.num_mels, "hop_size": mel.hop_size, "win_size": mel.win_size}
    return functools.partial(
        mel_spectrogram, **sizes, sampling_rate=mel.sampling_rate, fmin=mel.fmin, fmax=mel.fmax, center=False
    )


def build(config: HiFiGanConfig) -> torch.nn.Module:
    """The official training model, generator of CosyVoice 2 and discriminators, with the sizes of `config`."""
    from cosyvoice.hifigan.discriminator import MultipleDiscriminator, MultiResSpecDiscriminator
    from cosyvoice.hifigan.f0_predictor import ConvRNNF0Predictor
    from cosyvoice.hifigan.generator import HiFTGenerator
    from cosyvoice.hifigan.hifigan import HiFiGan
    from matcha.hifigan.models import MultiPeriodDiscriminator

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
    discriminator = MultipleDiscriminator(MultiPeriodDiscriminator(), MultiResSpecDiscriminator())
    return HiFiGan(generator, discriminator, [_mel(config)])


def build_step(
    config: HiFiGanConfig, mel: torch.Tensor, waveform: torch.Tensor, f0: torch.Tensor, device: torch.device
) -> Callable[[], None]:
    """Both turns of the official loop on one batch: mel [B, 80, F], waveform [B, T], f0 [B, F]."""
    model = build(config).to(device).train()
    optimizers = {
        turn: torch.optim.Adam(getattr(model, turn).parameters(), lr=2e-4) for turn in ("discriminator", "generator")
    }
    values = {"speech_feat": mel.transpose(1, 2), "speech": waveform, "pitch_feat": f0}

    def step() -> None:
        for turn, optimizer in optimizers.items():
            model({**values, "turn": turn}, device)["loss"].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
            optimizer.step()
            for each in optimizers.values():
                each.zero_grad()

    return step
