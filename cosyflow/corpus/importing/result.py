"""What came of an import: which utterances were taken, and why others were not."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cosyflow.corpus.importing.split import dev_utterances
from cosyflow.corpus.names import UniqueNames
from cosyflow.corpus.rejects import RejectTable

_KIND = re.compile(r"[^,:;(]+")
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Taken:
    """An utterance with the name that it got, and that of the source."""

    utt: str
    spk: str
    text: str
    wav: str
    seconds: float
    source: str
    source_spk: str
    instruct: str | None = None


@dataclass
class Summary:
    """Everything that was seen is one of `taken`, `reasons` (rejected, by kind) and `ignored` (no utterances)."""

    taken: list[Taken] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    rejects: RejectTable = field(default_factory=RejectTable)
    ignored: Counter[str] = field(default_factory=Counter)
    _unique: UniqueNames = field(default_factory=UniqueNames)

    def reject(self, name: str, reason: str) -> None:
        """Counts an utterance that cannot be used; its kind is what the reason begins with."""
        match = _KIND.match(reason)
        self.reasons[match[0].strip() if match else reason] += 1
        self.rejects.add(self._unique.make(name), reason)

    def dev(self, share: float, seed: int) -> set[str]:
        """The utterances that are split off as dev."""
        return dev_utterances({each.utt: each.spk for each in self.taken}, share, seed)

    @property
    def seen(self) -> int:
        return len(self.taken) + self.reasons.total() + self.ignored.total()

    @property
    def speakers(self) -> int:
        return len({each.spk for each in self.taken})

    @property
    def hours(self) -> float:
        return round(sum(each.seconds for each in self.taken) / SECONDS_PER_HOUR, 4)

    def as_json(self) -> dict[str, Any]:
        return {
            "seen": self.seen,
            "taken": len(self.taken),
            "rejected": dict(sorted(self.reasons.items())),
            "ignored": dict(sorted(self.ignored.items())),
            "speakers": self.speakers,
            "hours": self.hours,
        }
