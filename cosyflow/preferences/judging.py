"""Judges compare recordings with samples, so that only those which are worse become the rejected half of a pair."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cosyflow import storage
from cosyflow.corpus.kaldi import KaldiUtterance
from cosyflow.errors import CosyFlowError
from cosyflow.evaluation.judges.named import Judges, Missing
from cosyflow.evaluation.listing import Entry
from cosyflow.evaluation.measures import METRICS, Pairs, penalty
from cosyflow.evaluation.rows import CANDIDATE, RECORDED, judge_row
from cosyflow.evaluation.workers import Workers
from cosyflow.preferences.sampling import Sample, choose_prompts

LEAST: Mapping[str, float] = MappingProxyType(
    {"wer": 0.1, "cer": 0.05, "similarity": 0.1, "dnsmos": 0.3, "quality": 0.5, "failures": 1.0}
)
"""How much worse a sample is at least that counts as worse, in the metric's unit."""


@dataclass(frozen=True)
class Comparison:
    """How much worse a sample is than its recording, by metric; less than 0 is better."""

    differences: dict[str, float]
    why_no_pair: str
    """Empty when it is a pair."""


@dataclass(frozen=True)
class Comparisons:
    """Of all samples, and why metrics took no part."""

    by_utterance: dict[str, Comparison]
    missing: dict[str, str]


def compare(
    workers: Workers,
    judges: Judges,
    utterances: Sequence[KaldiUtterance],
    samples: Mapping[str, Sample],
    least: Mapping[str, float],
    folder: str,
    language: str,
    seed: int,
) -> Comparisons:
    """Lets judges hear recordings and samples.

    A voice is compared with another utterance of its speaker; without one, likeness does not count.

    Args:
        utterances: those that have samples.
        least: see LEAST; metrics that are not in it do not count.
        folder: where the judges' answers are kept.

    Raises:
        CosyFlowError: no judge judged.
    """
    voices = choose_prompts(utterances, "other", seed)
    names, entries = {}, []
    for each in utterances:
        voice = voices[each.utt]
        prompt = each if isinstance(voice, str) else voice
        names[each.utt] = _name(each.utt, samples[each.utt], prompt)
        entries.append(Entry(names[each.utt], prompt.wav, prompt.text, each.text, each.wav, each.spk))
    wavs = {RECORDED: [each.wav for each in utterances], CANDIDATE: [samples[each.utt].wav for each in utterances]}
    rows = {
        name: judge_row(name, wavs[name], entries, judges, workers, storage.join(folder, name), language).pairs
        for name in (RECORDED, CANDIDATE)
    }
    missing = _missing(rows.values(), least)
    judged = [name for name in least if METRICS[name].judge]
    if all(name in missing for name in judged):
        raise CosyFlowError(
            f"no judge judged, so no pair is known to differ ({'; '.join(dict.fromkeys(missing.values()))}); correct"
            " --judges, or leave it out to take every pair that is not equal"
        )
    return Comparisons(
        {
            each.utt: _compare(names[each.utt], rows, least, [*missing, *_uncompared(voices[each.utt])])
            for each in utterances
        },
        missing,
    )


def _name(utt: str, sample: Sample, prompt: KaldiUtterance) -> str:
    """Under which answers are kept: another when the utterance, its sample or the voice was changed."""
    return f"{hashlib.sha256(f'{sample.identity} {prompt.wav}'.encode()).hexdigest()[:12]}-{utt}"


def _missing(rows: Iterable[Pairs], least: Mapping[str, float]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pairs in rows:
        for name in least:
            measured = pairs[name]
            if isinstance(measured, Missing):
                found.setdefault(name, measured.reason)
    return found


def _uncompared(voice: KaldiUtterance | str) -> list[str]:
    return ["similarity"] if isinstance(voice, str) else []


def _compare(utt: str, rows: Mapping[str, Pairs], least: Mapping[str, float], without: Sequence[str]) -> Comparison:
    differences = {
        name: _amount(name, rows[CANDIDATE], utt) - _amount(name, rows[RECORDED], utt)
        for name in least
        if name not in without
    }
    worse = [name for name, found in differences.items() if found >= least[name]]
    better = [name for name, found in differences.items() if found <= -least[name]]
    if better:
        return Comparison(differences, f"the sample is better than the recording in {', '.join(better)}")
    return Comparison(differences, "" if worse else "the sample is as good as the recording")


def _amount(name: str, pairs: Pairs, utt: str) -> float:
    """A measurement so turned that less is better."""
    measured = pairs[name]
    if isinstance(measured, Missing):
        raise ValueError(f"{name} is missing")
    amount, weight = penalty(name, measured[utt])
    return amount / weight
