"""The clock of a Retraining: which tick of its schedule has come, by what was remembered at the look before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pipelines.retraining.model import Schedule

GRACE = timedelta(minutes=10)
"""A tick that nobody saw for longer is gone: ticks never catch up. A controller is replaced within that time."""


@dataclass(frozen=True)
class Clock:
    """What is remembered of a schedule from look to look.

    Attributes:
        declared: the schedule in words; another one begins its clock anew.
        tick: the latest that came; None before the first.
        next_tick: the one to come; None without a schedule.
    """

    declared: str = ""
    tick: datetime | None = None
    next_tick: datetime | None = None


def look(schedule: Schedule | None, before: Clock, now: datetime) -> Clock:
    """The clock now.

    A clock that begins has no tick behind it. However much time passed since the look before, one tick comes at most;
    where the time of day was put back, a tick that comes again is the same tick.

    Args:
        schedule: None for a Retraining without one.
        before: at the look before; `Clock()` where there was none.
        now: with a time zone.
    """
    if schedule is None:
        return Clock()
    declared = f"{schedule.cron} {schedule.time_zone}"
    following = schedule.next_after(now)
    if declared != before.declared or before.next_tick is None:
        return Clock(declared, None, following)
    if now < before.next_tick:
        return Clock(declared, before.tick, min(before.next_tick, following))
    came = schedule.last_before(now)
    return Clock(declared, came if now - came <= GRACE else before.tick, following)
