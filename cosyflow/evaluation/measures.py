"""The metrics of a report: how each is made of what judges say, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cosyflow.evaluation.hearing import Answer, Heard
from cosyflow.evaluation.judges import DNSMOS, QUALITY, SPEAKER, TRANSCRIPT
from cosyflow.evaluation.judges.named import Missing
from cosyflow.evaluation.judges.quality import LOWEST
from cosyflow.evaluation.statistics import Pair
from cosyflow.evaluation.words import errors

Failure = Literal["", "empty", "endless", "silent"]
ENDLESS = 3.0
"""Times as long as expected."""
UNHEARD: Mapping[str, Answer] = {TRANSCRIPT: "", SPEAKER: 0.0, DNSMOS: LOWEST, QUALITY: LOWEST}
"""What counts for empty and silent audio: the worst, not nothing."""


@dataclass(frozen=True)
class Metric:
    """One figure of a report."""

    judge: str
    """The role it needs, "" for none."""
    better: Literal["lower", "higher", "near 1"]


METRICS: Mapping[str, Metric] = {
    "wer": Metric(TRANSCRIPT, "lower"),
    "cer": Metric(TRANSCRIPT, "lower"),
    "similarity": Metric(SPEAKER, "higher"),
    "dnsmos": Metric(DNSMOS, "higher"),
    "quality": Metric(QUALITY, "higher"),
    "duration_ratio": Metric("", "near 1"),
    "failures": Metric("", "lower"),
    "rtf": Metric("", "lower"),
}


@dataclass(frozen=True)
class Facts:
    """What is known of an utterance without any judge. Times in seconds."""

    utt: str
    said: str
    """What should be heard."""
    seconds: float
    expected: float
    failure: Failure
    spent: float | None = None
    """Of computing; None for what was recorded."""
    is_prompt: bool = False
    """It is the very recording that voices are compared with."""


Pairs = dict[str, dict[str, Pair] | Missing]
"""By metric the amount and weight of each utterance (`cosyflow.evaluation.statistics`), or why there is none."""


def failure_of(seconds: float, expected: float, is_empty: bool, is_silent: bool, has_ended: bool) -> Failure:
    """Why speech is of no use at all."""
    if is_empty:
        return "empty"
    if is_silent:
        return "silent"
    return "endless" if not has_ended or seconds > ENDLESS * expected else ""


def measure(facts: Sequence[Facts], heard: Heard, language: str) -> Pairs:
    """The measurements of one row."""
    found: Pairs = {}
    for name, metric in METRICS.items():
        answers = heard[metric.judge] if metric.judge else []
        found[name] = answers if isinstance(answers, Missing) else _pairs(name, facts, answers, language)
    return found


def _pairs(name: str, facts: Sequence[Facts], answers: Sequence[Answer], language: str) -> dict[str, Pair] | Missing:
    if name in ("wer", "cer"):
        return {
            each.utt: _error_pair(name, each.said, str(answer), language)
            for each, answer in zip(facts, answers, strict=True)
        }
    if name == "similarity" and all(each.is_prompt for each in facts):
        return Missing("the list has no recordings of its texts, and a prompt is like itself")
    if name == "duration_ratio":
        return {each.utt: (each.seconds / each.expected, 1.0) for each in facts}
    if name == "failures":
        return {each.utt: (float(bool(each.failure)), 1.0) for each in facts}
    if name == "rtf":
        if any(each.spent is None for each in facts):
            return Missing("recorded speech takes no computing")
        return {each.utt: (each.spent or 0.0, max(each.seconds, 0.1)) for each in facts}
    return {each.utt: (float(answer), 1.0) for each, answer in zip(facts, answers, strict=True)}


def _error_pair(name: str, said: str, heard: str, language: str) -> Pair:
    found = errors(said, heard, language)
    if name == "wer":
        return float(found.words), float(max(found.of_words, 1))
    return float(found.characters), float(max(found.of_characters, 1))


def penalty(name: str, pair: Pair) -> Pair:
    """A measurement so turned that less is better: the negative, or the distance from 1 as a logarithm."""
    amount, weight = pair
    better = METRICS[name].better
    if better == "near 1":
        return abs(math.log(max(amount, 1e-3))), weight
    return (-amount if better == "higher" else amount), weight
