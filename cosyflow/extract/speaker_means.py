"""The mean embedding of a speaker, without utterances that are nothing like the others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

MAX_NORM_RATIO = 3.0
"""An embedding may be this many times as long, or as short, as is usual in the corpus: of silence it is 6 times."""
MIN_COSINE = 0.2
"""To the median of its speaker; of two recordings of one person it is about 0.65, of two people about 0.1."""
MAX_SHARE = 0.5
"""When more of a speaker's utterances are far off, none of them can be called unusual, and all are kept."""
_FEWEST_FOR_A_MEDIAN = 3


@dataclass(frozen=True)
class SpeakerMeans:
    """Mean embedding by speaker, and the utterances that are in none of them."""

    means: dict[str, list[float]]
    left_out: list[str]


def speaker_means(utterances: Mapping[str, Sequence[str]], embeddings: Mapping[str, Sequence[float]]) -> SpeakerMeans:
    """Plain means, as the official tool makes them, over the utterances that are not far off.

    Args:
        utterances: by speaker. Those without an embedding do not count; a speaker without any is left out.
        embeddings: of equal size, finite, by utterance.
    """
    usual = usual_norm(embeddings)
    means: dict[str, list[float]] = {}
    left_out: list[str] = []
    for speaker, names in utterances.items():
        there = [name for name in names if name in embeddings]
        if not there:
            continue
        values = torch.tensor([embeddings[name] for name in there])
        kept = is_like_the_others(values, usual)
        means[speaker] = values[kept].mean(dim=0).tolist()
        left_out += [name for name, is_kept in zip(there, kept.tolist(), strict=True) if not is_kept]
    return SpeakerMeans(means, left_out)


def usual_norm(embeddings: Mapping[str, Sequence[float]]) -> float:
    """The median length of all embeddings of a corpus; 0 when there are none."""
    if not embeddings:
        return 0.0
    norms = [math.sqrt(sum(value * value for value in each)) for each in embeddings.values()]
    return statistics.median(norms)


def is_like_the_others(values: torch.Tensor, usual: float) -> torch.Tensor:
    """Which embeddings [utterances, size] of one speaker belong into the mean: bool [utterances], at least half of it.

    Args:
        usual: length of embeddings in the whole corpus, so that one of two is known as the odd one.
    """
    everything = torch.ones(len(values), dtype=torch.bool)
    norms = torch.linalg.vector_norm(values, dim=1)
    kept = (norms <= MAX_NORM_RATIO * usual) & (norms * MAX_NORM_RATIO >= usual)
    if kept.sum() >= _FEWEST_FOR_A_MEDIAN:
        directions = torch.nn.functional.normalize(values, dim=1)
        median = directions[kept].median(dim=0).values
        kept &= torch.nn.functional.cosine_similarity(directions, median[None], dim=1) >= MIN_COSINE
    return kept if (~kept).sum() <= MAX_SHARE * len(values) else everything
