"""Which rank the others wait for: decided from what each rank says of itself.

Every rank says what it is doing, in words that name an update and its utterances (`Doing`). A rank that others wait
for is in another phase than they are, or says nothing at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low

READS, COMPUTES, WAITS, SAVES = "reads its batches", "computes", "waits for the other ranks", "saves"
PHASES = (READS, COMPUTES, WAITS, SAVES)
SLOW_RATIO = 1.3
"""How much longer than the median a rank may take for its own work."""
SLOW_SECONDS = 0.01
"""Less than this an update is no matter."""
NAMED_UTTERANCES = 4


@dataclass
class Doing:
    """What a rank is doing, in its own words.

    Attributes:
        update: number of the update, over all starts.
        phase: one of PHASES.
        utterances: of its batches; those of the update before while it reads.
        seconds: for how long it has been in that phase.
        work: seconds an update of its own work (reading and computing), on average over its last updates; 0.0 until
            it has done enough of them.
    """

    update: int = 0
    phase: str = READS
    utterances: list[str] = field(default_factory=list)
    seconds: float = 0.0
    work: float = 0.0


@dataclass(frozen=True)
class Seen:
    """What one rank knows of another: what it said last, and how many seconds ago that was new."""

    doing: Doing
    silent: float


def who_stalls(ranks: Mapping[int, Seen], patience: float) -> str:
    """A sentence on the ranks for which others have waited for longer than `patience` seconds; "" for none.

    Those that have fallen silent are named; else those that do not wait; else there is something between them.
    """
    waiting = [
        seen.doing.seconds
        for seen in ranks.values()
        if seen.doing.phase == WAITS and seen.doing.seconds > patience and seen.silent <= patience / 2
    ]
    if not waiting:
        return ""
    waited = f"others have waited for {max(waiting):.0f} s"
    silent = {rank: seen for rank, seen in ranks.items() if seen.silent > patience / 2}
    if silent:
        return "; ".join(
            f"rank {rank} has said nothing for {seen.silent:.0f} s: its process stands still, or it or its machine is"
            f" gone; it was last heard of at {_place(seen.doing)}; {waited}"
            for rank, seen in silent.items()
        )
    late = {rank: seen.doing for rank, seen in ranks.items() if seen.doing.phase != WAITS}
    if late:
        return "; ".join(
            f"rank {rank} {doing.phase} for {doing.seconds:.0f} s at {_place(doing)}; {waited}"
            for rank, doing in late.items()
        )
    return (
        f"all ranks wait for each other, for {max(waiting):.0f} s: look at the network between them, and their devices"
    )


def who_is_slow(ranks: Mapping[int, Seen]) -> dict[int, str]:
    """A sentence for each rank whose own work takes over SLOW_RATIO times the median's."""
    works = {rank: seen.doing.work for rank, seen in ranks.items()}
    if len(works) < 2 or not all(works.values()):
        return {}
    usual = median_low(works.values())
    return {
        rank: f"rank {rank} takes {work / usual:.1f} times as long as the median of the ranks: {work:.2f} s of its own"
        f" work an update, against {usual:.2f} s; it is at {_place(ranks[rank].doing)}"
        for rank, work in works.items()
        if work > SLOW_RATIO * usual and work - usual > SLOW_SECONDS
    }


def _place(doing: Doing) -> str:
    return f"update {doing.update}, {_named(doing.utterances)}"


def _named(utterances: Sequence[str]) -> str:
    if not utterances:
        return "which has no utterance of it yet"
    more = f" and {len(utterances) - NAMED_UTTERANCES} more" if len(utterances) > NAMED_UTTERANCES else ""
    return f"with {', '.join(utterances[:NAMED_UTTERANCES])}{more}"
