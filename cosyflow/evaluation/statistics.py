"""How sure a figure is: intervals by the bootstrap over utterances (Efron, 1979), and paired ones for two systems.

A measurement is a pair (amount, weight) for each utterance; the figure is the sum of amounts over the sum of weights:
errors over words for the word error rate, a value over 1 for a mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RESAMPLES = 4000
CONFIDENCE = 0.95
SEED = 20_260_101

Pair = tuple[float, float]


@dataclass(frozen=True)
class Interval:
    """A figure, the limits within which it lies with the confidence asked for, and its number of utterances."""

    value: float
    low: float
    high: float
    n: int


def interval(pairs: Sequence[Pair], confidence: float = CONFIDENCE) -> Interval:
    """The figure of at least one utterance, with its bootstrap interval. The same pairs give the same limits."""
    amounts, weights = np.array(pairs, dtype=np.float64).T
    drawn = _draws(len(pairs))
    return _interval(ratio(amounts, weights), _resampled(amounts, weights, drawn), confidence, len(pairs))


def difference(first: Mapping[str, Pair], second: Mapping[str, Pair], confidence: float = CONFIDENCE) -> Interval:
    """The figure of `first` less that of `second`, over the same utterances, each drawn for both (paired bootstrap)."""
    if first.keys() != second.keys():
        raise ValueError("the two do not have the same utterances")
    utts = sorted(first)
    amounts, weights = np.array([first[utt] for utt in utts], dtype=np.float64).T
    others, other_weights = np.array([second[utt] for utt in utts], dtype=np.float64).T
    drawn = _draws(len(utts))
    found = _resampled(amounts, weights, drawn) - _resampled(others, other_weights, drawn)
    return _interval(ratio(amounts, weights) - ratio(others, other_weights), found, confidence, len(utts))


def ratio(amounts: np.ndarray, weights: np.ndarray) -> float:
    return float(amounts.sum() / weights.sum())


@lru_cache(maxsize=4)
def _draws(count: int) -> np.ndarray:
    """How often each of `count` utterances is drawn, in each resample: [resamples, count]."""
    drawn = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return drawn.astype(np.float64)


def _resampled(amounts: np.ndarray, weights: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    found: np.ndarray = (drawn @ amounts) / (drawn @ weights)
    return found


def _interval(value: float, found: np.ndarray, confidence: float, n: int) -> Interval:
    rest = (1 - confidence) / 2
    low, high = np.quantile(found, [rest, 1 - rest])
    return Interval(value, min(value, float(low)), max(value, float(high)), n)
