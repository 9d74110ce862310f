"""The two turns of adversarial vocoder training, on speech that the generator made once.

A step is

    generated = generator(mel)
    discriminator_turn(discriminator, real, generated.waveform, config).total.backward()
    ...                                                  # the discriminator's optimizer steps
    generator_turn(discriminator, real, generated, f0, config).total.backward()
    ...                                                  # the generator's optimizer steps
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from cosyflow.audio.features import MelSettings, mel_spectrogram
from cosyflow.config.vocoder import GanLossConfig, HiFiGanConfig, MelLossConfig
from cosyflow.models.vocoder.discriminator import Discriminator, Judgement
from cosyflow.models.vocoder.hift import GeneratedSpeech, HiFTGenerator


class HiFiGan(nn.Module):
    """Generator and discriminator with the keys of a training checkpoint: `generator.*` and `discriminator.*`."""

    def __init__(self, config: HiFiGanConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = HiFTGenerator(config.generator)
        self.discriminator = Discriminator(config.discriminator)


class DiscriminatorLoss(NamedTuple):
    """Scalars; `total` is the weighted sum of the others."""

    total: torch.Tensor
    adversarial: torch.Tensor
    relativistic: torch.Tensor


class GeneratorLoss(NamedTuple):
    """Scalars; `total` is the weighted sum of the others."""

    total: torch.Tensor
    adversarial: torch.Tensor
    feature_matching: torch.Tensor
    mel: torch.Tensor
    relativistic: torch.Tensor
    f0: torch.Tensor


def discriminator_turn(
    discriminator: nn.Module, real: torch.Tensor, generated: torch.Tensor, config: GanLossConfig
) -> DiscriminatorLoss:
    """real, generated [B, T]; no gradient reaches the generator. Both are judged in one call of `discriminator`."""
    _require_same_shape("samples", real, generated)
    judgements: list[Judgement] = discriminator(torch.cat([real, generated.detach()]))
    real_scores, generated_scores = zip(*(judgement.score.chunk(2) for judgement in judgements), strict=True)
    return discriminator_loss(real_scores, generated_scores, config)


def discriminator_loss(
    real: Sequence[torch.Tensor], generated: Sequence[torch.Tensor], config: GanLossConfig
) -> DiscriminatorLoss:
    """The discriminator's loss from its scores; see `discriminator_turn`."""
    adversarial = discriminator_least_squares(real, generated)
    relativistic = truncated_pointwise_relativistic(real, generated, config.tpr_loss_tau)
    return DiscriminatorLoss(adversarial + config.tpr_loss_weight * relativistic, adversarial, relativistic)


def generator_turn(
    discriminator: nn.Module, real: torch.Tensor, generated: GeneratedSpeech, f0: torch.Tensor, config: GanLossConfig
) -> GeneratorLoss:
    """real [B, T], f0 [B, frames] in Hz as measured. The discriminator is frozen: its weights get no gradient."""
    _require_same_shape("samples", real, generated.waveform)
    with frozen(discriminator):
        with torch.no_grad():
            of_real: list[Judgement] = discriminator(real)
        of_generated: list[Judgement] = discriminator(generated.waveform)
    return generator_loss(of_real, of_generated, real, generated, f0, config)


def generator_loss(
    of_real: Sequence[Judgement],
    of_generated: Sequence[Judgement],
    real: torch.Tensor,
    generated: GeneratedSpeech,
    f0: torch.Tensor,
    config: GanLossConfig,
) -> GeneratorLoss:
    """The generator's loss from what the discriminators said; see `generator_turn`."""
    _require_same_shape("f0 frames", f0, generated.f0)
    real_scores, real_features = zip(*of_real, strict=True)
    scores, features = zip(*of_generated, strict=True)
    adversarial = generator_least_squares(scores)
    matching = feature_matching(real_features, features)
    mel = torch.stack(
        [mel_distance(real, generated.waveform, transform) for transform in config.mel_spec_transform]
    ).sum()
    relativistic = truncated_pointwise_relativistic(scores, real_scores, config.tpr_loss_tau)
    f0_distance = F.l1_loss(generated.f0.float(), f0.float())
    total = (
        adversarial
        + config.feat_match_loss_weight * matching
        + config.multi_mel_spectral_recon_loss_weight * mel
        + config.tpr_loss_weight * relativistic
        + config.f0_loss_weight * f0_distance
    )
    return GeneratorLoss(total, adversarial, matching, mel, relativistic, f0_distance)


def mel_distance(real: torch.Tensor, generated: torch.Tensor, transform: MelLossConfig) -> torch.Tensor:
    """Mean absolute difference of log mel spectrograms, in float32 whatever the surrounding autocast says."""
    settings = MelSettings(
        sample_rate=transform.sampling_rate,
        n_fft=transform.n_fft,
        hop_size=transform.hop_size,
        win_size=transform.win_size,
        num_mels=transform.num_mels,
        fmin=transform.fmin,
        fmax=transform.fmax,
    )
    with torch.autocast(real.device.type, enabled=False):
        return F.l1_loss(mel_spectrogram(generated.float(), settings), mel_spectrogram(real.float(), settings))


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """What is computed within gives no gradient to the parameters of `module`, only to its inputs."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _require_same_shape(what: str, real: torch.Tensor, generated: torch.Tensor) -> None:
    if real.shape != generated.shape:
        raise ValueError(f"real {list(real.shape)} and generated {list(generated.shape)} {what} must have one shape")


def discriminator_least_squares(real: Sequence[torch.Tensor], generated: Sequence[torch.Tensor]) -> torch.Tensor:
    """Scores of real speech should be 1, of generated speech 0 (arXiv 1611.04076); summed over discriminators."""
    return _total(
        (1 - of_real).square().mean() + of_generated.square().mean()
        for of_real, of_generated in zip(real, generated, strict=True)
    )


def generator_least_squares(generated: Sequence[torch.Tensor]) -> torch.Tensor:
    """Scores of generated speech should be 1; summed over discriminators."""
    return _total((1 - score).square().mean() for score in generated)


def feature_matching(
    real: Sequence[Sequence[torch.Tensor]], generated: Sequence[Sequence[torch.Tensor]]
) -> torch.Tensor:
    """Twice the mean distance of the layers' outputs, summed over layers and discriminators (arXiv 2010.05646)."""
    return 2 * _total(
        F.l1_loss(of_generated, of_real)
        for real_layers, generated_layers in zip(real, generated, strict=True)
        for of_real, of_generated in zip(real_layers, generated_layers, strict=True)
    )


def truncated_pointwise_relativistic(
    better: Sequence[torch.Tensor], worse: Sequence[torch.Tensor], tau: float
) -> torch.Tensor:
    """Punishes pairs whose margin is below the median margin, by at most `tau` a discriminator (arXiv 2103.14245).

    The discriminator's turn passes scores of real speech as `better`, the generator's turn those of generated speech.
    Where no margin is below the median, as when all are equal, the loss is 0.
    """
    losses = []
    for high, low in zip(better, worse, strict=True):
        margin = high - low
        distance = (margin.median() - margin).clamp(min=0)  # of those below the median; 0 for the others
        below = (distance > 0).sum().clamp(min=1)
        losses.append((distance.square().sum() / below).clamp(max=tau))
    return _total(losses)


def _total(terms: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(terms)).sum()
