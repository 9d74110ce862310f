"""Whether a candidate takes the champion's place: a pure function of measurements and rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from cosyflow.config.gate import GateConf, Rule
from cosyflow.evaluation.judges.named import Missing
from cosyflow.evaluation.measures import METRICS, Pairs, penalty
from cosyflow.evaluation.statistics import Interval, Pair, difference, interval

Outcome = Literal["promote", "refuse", "not-judged"]
Verdict = Literal["better", "as good", "worse", "reached", "not reached", "missing"]


@dataclass(frozen=True)
class Finding:
    """What was found for one metric.

    `difference` is how much worse the candidate is than the champion, in the metric's unit, with its interval; where
    there is no champion, how far it is from the bar. Less than 0 is better.
    """

    verdict: Verdict
    text: str
    difference: Interval | None = None


@dataclass(frozen=True)
class Decision:
    """What the gate says, and why."""

    outcome: Outcome
    reasons: list[str]
    findings: dict[str, Finding] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def decide(conf: GateConf, candidate: Pairs, champion: Pairs | None, problems: Sequence[str] = ()) -> Decision:
    """The gate's decision.

    With a champion: no metric is worse beyond its margin, and one is better, by the paired bootstrap over the same
    utterances with `conf.confidence` for all metrics together. Without one: each metric reaches its bar. A metric
    that has a rule and is missing, of either, promotes nothing. Where no judge judged at all, nothing is decided.

    Args:
        candidate: its measurements (`cosyflow.evaluation.measures.measure`).
        champion: the champion's, of the same list and by the same judges; None where there is none.
        problems: what makes the measurements themselves doubtful; any refuses.
    """
    judged = [name for name in conf.rules if METRICS[name].judge]
    absent = [each for name in judged if isinstance(each := candidate[name], Missing)]
    if judged and len(absent) == len(judged):
        return Decision("not-judged", list(dict.fromkeys(each.reason for each in absent)))
    sure = 1 - (1 - conf.confidence) / len(conf.rules)
    findings = {
        name: _missing(name, candidate, champion)
        or (_reach(name, rule, candidate) if champion is None else _compare(name, rule, candidate, champion, sure))
        for name, rule in conf.rules.items()
    }
    reasons = [*problems, *_too_few(conf, candidate)]
    bad = ("worse", "not reached", "missing")
    reasons += [finding.text for finding in findings.values() if finding.verdict in bad]
    if not reasons and champion is not None and all(each.verdict != "better" for each in findings.values()):
        reasons.append(f"no metric is better than the champion's with {conf.confidence:.0%} confidence")
    if reasons:
        return Decision("refuse", reasons, findings)
    good = [finding.text for finding in findings.values() if finding.verdict in ("better", "reached")]
    return Decision("promote", good, findings)


def _missing(name: str, candidate: Pairs, champion: Pairs | None) -> Finding | None:
    for whose, pairs in (("the candidate's", candidate), ("the champion's", champion)):
        if pairs is not None and isinstance(found := pairs[name], Missing):
            return Finding("missing", f"{name}: {whose} is missing: {found.reason}")
    if champion is not None and candidate[name].keys() != champion[name].keys():  # type: ignore[union-attr]
        return Finding("missing", f"{name}: the champion's is of another list of utterances; evaluate both on one")
    return None


def _compare(name: str, rule: Rule, candidate: Pairs, champion: Pairs, confidence: float) -> Finding:
    found = difference(_penalties(name, candidate), _penalties(name, champion), confidence)
    limits = f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})"
    if found.value > rule.margin:
        return Finding("worse", f"{name}: worse than the champion's by {limits}, the margin is {rule.margin:g}", found)
    if found.high < 0 and -found.value >= rule.gain:
        return Finding("better", f"{name}: better than the champion's by {limits}", found)
    return Finding("as good", f"{name}: as good as the champion's: {limits}", found)


def _reach(name: str, rule: Rule, candidate: Pairs) -> Finding:
    bar = -rule.bar if METRICS[name].better == "higher" else rule.bar
    pairs = _penalties(name, candidate)
    found = interval([(amount - bar * weight, weight) for amount, weight in pairs.values()])
    value = abs(found.value + bar)
    if found.value > 0:
        return Finding("not reached", f"{name}: {value:.4f} does not reach the bar of {rule.bar:g}", found)
    return Finding("reached", f"{name}: {value:.4f} reaches the bar of {rule.bar:g}", found)


def _penalties(name: str, pairs: Pairs) -> dict[str, Pair]:
    found = pairs[name]
    assert not isinstance(found, Missing)  # noqa: S101 - _missing has looked
    return {utt: penalty(name, pair) for utt, pair in found.items()}


def _too_few(conf: GateConf, candidate: Pairs) -> Iterator[str]:
    counts = [len(pairs) for pairs in candidate.values() if not isinstance(pairs, Missing)]
    if counts and min(counts) < conf.min_utterances:
        yield f"utterances: {min(counts)} are too few to decide, {conf.min_utterances} are needed"
