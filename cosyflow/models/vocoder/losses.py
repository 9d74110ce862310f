"""Losses of adversarial vocoder training, from what the discriminators said of real and of generated speech."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch.nn import functional as F


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
