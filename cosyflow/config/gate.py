"""Rules of the gate: when a candidate takes the champion's place."""

from __future__ import annotations

from dataclasses import dataclass, field, fields


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is asked of one metric, in the metric's own unit."""

    margin: float
    """How much worse than the champion's the candidate's may be."""
    bar: float
    """Where there is no champion: what the candidate reaches at least."""

    gain: float = 0.0
    """How much better it must be to count as better: what is certain may still be too little to matter."""

    def __post_init__(self) -> None:
        for name in ("margin", "gain"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)} is negative")


@dataclass(frozen=True, kw_only=True)
class GateConf:
    """The metrics that decide; one that is null does not. A metric that decides and is missing promotes nothing.

    The bars are those of intelligible speech by the small judges of `cosyflow judges`; other judges have other scales.
    """

    wer: Rule | None = field(default_factory=lambda: Rule(margin=0.02, bar=0.25, gain=0.005))
    """Share of words."""
    cer: Rule | None = field(default_factory=lambda: Rule(margin=0.02, bar=0.15, gain=0.005))
    """Share of characters."""
    similarity: Rule | None = field(default_factory=lambda: Rule(margin=0.02, bar=0.65, gain=0.01))
    """Cosine."""
    dnsmos: Rule | None = field(default_factory=lambda: Rule(margin=0.1, bar=2.2, gain=0.05))
    """Points of 5."""
    quality: Rule | None = field(default_factory=lambda: Rule(margin=0.15, bar=2.2, gain=0.08))
    """Points of 5."""
    duration_ratio: Rule | None = field(default_factory=lambda: Rule(margin=0.05, bar=0.3, gain=0.03))
    """How far the durations are from those expected, as the logarithm of the ratio: 0.05 is 5 % too long or short."""
    failures: Rule | None = field(default_factory=lambda: Rule(margin=0.0, bar=0.02))
    """Share of utterances."""
    rtf: Rule | None = None
    """Seconds of computing for a second of speech; it depends on the machine."""
    confidence: float = 0.95
    """With which one metric at least is better, all metrics together."""
    min_utterances: int = 20
    """With fewer nothing is promoted."""

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise ValueError(f"confidence: {self.confidence} is not in [0.5, 1)")
        if self.min_utterances < 1:
            raise ValueError(f"min_utterances: {self.min_utterances} is less than 1")
        if not self.rules:
            raise ValueError("wer: no metric has a rule, so nothing would decide")

    @property
    def rules(self) -> dict[str, Rule]:
        """The rules by the metrics' names."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: rule for name, rule in found.items() if isinstance(rule, Rule)}
