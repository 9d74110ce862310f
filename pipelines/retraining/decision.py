"""What is to be done for declared runs: one pure function of what is wanted and what is there.

The controller, `python -m pipelines diff` and `apply` all ask it, so a pull request shows what the cluster would do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pipelines.retraining.model import Concurrency, Spec

FAILED, SUCCEEDED, WORKING = "failed", "succeeded", "working"


class What(StrEnum):
    """What is done for a Retraining."""

    NONE = "none"
    START = "start"
    WAIT = "wait"
    REPLACE = "replace"
    SCHEDULE = "schedule"
    UNSCHEDULE = "unschedule"


TO_DO = (What.START, What.REPLACE, What.SCHEDULE, What.UNSCHEDULE)
"""What changes something; waiting and nothing do not."""


@dataclass(frozen=True)
class Observed:
    """A run that a server knows.

    Attributes:
        retraining: whose it is.
        content: hash of what it runs.
        retry: the counter with which it was started.
        state: `working` from its creation on, then `succeeded` or `failed` (also when it was ended by somebody).
        started: when it was created.
        finished: when it ended; None while it works, or where that is not known.
        tick: of the schedule, which it was started for although its content was old; None for any other run.
        again: how many runs of the content had given way to newer content before it.
        canceled: somebody ended it; it has failed then.
    """

    id: str
    retraining: str
    content: str
    retry: int
    state: str
    started: datetime
    finished: datetime | None = None
    tick: datetime | None = None
    again: int = 0
    canceled: bool = False


@dataclass(frozen=True)
class Wanted:
    """A Retraining and its content now.

    Attributes:
        content: hash of what would run.
        data_changed: when the data were last seen to change; None where that is not known or not looked at.
        tick: the latest tick of its schedule that has come; None without a schedule, or before the first.
        next_tick: the first that is still to come.
    """

    name: str
    spec: Spec
    content: str
    data_changed: datetime | None = None
    tick: datetime | None = None
    next_tick: datetime | None = None


@dataclass(frozen=True)
class Action:
    """What is to be done for one Retraining.

    Attributes:
        ends: ids of the runs that are ended first (`replace`).
        tick: for which old content runs again; None for any other run.
        again: how many runs of the content have given way to newer content.
    """

    retraining: str
    action: What
    content: str
    reason: str
    ends: tuple[str, ...] = field(default=())
    tick: datetime | None = None
    again: int = 0

    def to_json(self) -> dict[str, str]:
        return {
            "retraining": self.retraining,
            "action": self.action.value,
            "hash": self.content,
            "reason": self.reason,
        }


def decide(
    wanted: Sequence[Wanted], observed: Sequence[Observed], now: datetime, scheduled: Sequence[str] | None = None
) -> list[Action]:
    """The actions for all Retrainings, in the order of their names.

    A content has at most one run that works or has succeeded, whichever Retraining started it; one that failed is
    repeated only when `retry` was raised above that of all its runs. Of alike Retrainings the first by name starts the
    run. A tick that forces a run of old content starts one, unless a run of it worked when the tick came.

    Args:
        scheduled: names of the Retrainings whose clock is kept already; None where the caller keeps no clock, and has
            none to start or to stop.
    """
    by_name = {one.name: one for one in wanted}
    actions: list[Action] = []
    begun: dict[str, str] = {}
    for name in sorted(by_name):
        is_scheduled = None if scheduled is None else name in scheduled
        action = _decide(by_name[name], by_name, observed, now, begun, is_scheduled)
        if action.action in (What.START, What.REPLACE):
            begun[action.content] = name
        actions.append(action)
    gone = sorted(set(scheduled or ()) - set(by_name))
    return actions + [Action(name, What.UNSCHEDULE, "", "is declared no more") for name in gone]


def needless_by(action: Action, retry: int, runs: Iterable[Observed]) -> Observed | None:
    """The run that makes the one of an action needless, looked for once more before that one is made; None for none.

    It is the very one; or one of the content that works, or has succeeded (which a tick that forces a run passes over),
    or has failed although it was tried as often.
    """
    for run in runs:
        if run.content != action.content:
            continue
        if run.again < action.again and run.state == FAILED:
            continue
        is_it = (run.retraining, run.retry, run.tick) == (action.retraining, retry, action.tick)
        as_often = run.state == FAILED and run.retry >= retry
        if is_it or run.state == WORKING or (action.tick is None and (run.state == SUCCEEDED or as_often)):
            return run
    return None


def _decide(
    one: Wanted,
    every: Mapping[str, Wanted],
    observed: Sequence[Observed],
    now: datetime,
    begun: Mapping[str, str],
    is_scheduled: bool | None,
) -> Action:
    def act(what: What, reason: str, ends: tuple[str, ...] = ()) -> Action:
        return Action(one.name, what, one.content, reason, ends, one.tick if forced and not retries else None, again)

    spec, trigger = one.spec, one.spec.trigger
    forced = retries = False
    again = 0
    if spec.suspend:
        return act(What.UNSCHEDULE if is_scheduled else What.NONE, "suspended")
    alike = [run for run in observed if run.content == one.content and not _gave_way(run, every, observed)]
    again = sum(run.content == one.content for run in observed) - len(alike)
    working = [run for run in alike if run.state == WORKING]
    if working:
        return act(What.WAIT, f"run {working[0].id} works on it")
    if one.content in begun:
        return act(What.WAIT, f"Retraining {begun[one.content]} starts a run of the same content")
    forced = _forced(one, alike)
    succeeded = [run for run in alike if run.state == SUCCEEDED]
    if succeeded and not forced:
        return _rest(one, is_scheduled, f"done by run {succeeded[-1].id}")
    failed = max((run.retry for run in alike), default=-1)
    if not forced and failed >= spec.retry:
        return _rest(one, is_scheduled, f"run {alike[-1].id} failed; raise spec.retry above {failed} to repeat it")
    retries = bool(alike) and spec.retry > failed and not succeeded
    if trigger.after and (reason := _not_yet_after(trigger.after, every, observed)):
        return act(What.WAIT, reason)
    if reason := _not_yet_quiet(one, now):
        return act(What.WAIT, reason)
    if not (retries or forced) and (reason := _not_triggered(one, observed)):
        return _rest(one, is_scheduled, reason)
    why = "repeated, since spec.retry was raised" if retries else "a tick that forces it" if forced else "new content"
    older = [run for run in observed if run.retraining == one.name and run.state == WORKING]
    if older and spec.concurrency is Concurrency.WAIT:
        return act(What.WAIT, f"run {older[0].id} of older content works")
    if older and spec.concurrency is Concurrency.REPLACE:
        return act(What.REPLACE, f"{why} in place of run {older[0].id}", tuple(run.id for run in older))
    return act(What.START, why)


def _gave_way(run: Observed, every: Mapping[str, Wanted], observed: Sequence[Observed]) -> bool:
    """Whether a run was ended for newer content of its Retraining: it has not failed, and may run again.

    A run that began after this one ended is newer too, since the time of day may have been put back while this worked.
    What was ended by hand holds for its own Retraining as long as that wants the content, not for others.
    """
    if not run.canceled:
        return False
    owner = every.get(run.retraining)
    if owner is None or owner.content != run.content:
        return True
    since = min(run.started, run.finished or run.started)
    return any(
        other.retraining == run.retraining and other.content != run.content and other.started >= since
        for other in observed
        if other.id != run.id
    )


def _forced(one: Wanted, alike: Sequence[Observed]) -> bool:
    """Whether a tick that wants a run of old content too has come, and none was started for it or worked then."""
    schedule, tick = one.spec.trigger.schedule, one.tick
    if schedule is None or not schedule.force or tick is None or not alike:
        return False
    return all(run.tick != tick and (run.finished or run.started) < tick for run in alike)


def _not_yet_after(name: str, every: Mapping[str, Wanted], observed: Sequence[Observed]) -> str:
    """Why the run that must have succeeded before has not; "" when it has."""
    if name not in every:
        return f"Retraining {name}, after which it runs, is not declared, or cannot be looked at"
    before = every[name].content
    if any(run.content == before and run.state == SUCCEEDED for run in observed):
        return ""
    return f"Retraining {name} has not succeeded with its newest content"


def _not_yet_quiet(one: Wanted, now: datetime) -> str:
    """Why the data may still be on their way; "" when they have come."""
    new_data, changed = one.spec.trigger.on_new_data, one.data_changed
    if new_data is None or changed is None or (now - changed).total_seconds() >= new_data.quiet_seconds:
        return ""
    return f"data changed at {changed.isoformat()}; a run starts after {new_data.quiet_seconds} s of quiet"


def _not_triggered(one: Wanted, observed: Sequence[Observed]) -> str:
    """Why new content starts nothing; "" when it does."""
    trigger = one.spec.trigger
    if trigger.on_change or trigger.on_new_data or trigger.after:
        return ""
    if trigger.schedule is None:
        return "nothing triggers it; give spec.trigger"
    own = [run.started for run in observed if run.retraining == one.name]
    if one.tick is None or any(started >= one.tick for started in own):
        return "no tick has come since"
    return ""


def _rest(one: Wanted, is_scheduled: bool | None, reason: str) -> Action:
    """Nothing to do now: a clock that is not kept yet is begun, one that is not wanted any more is ended."""
    if one.spec.trigger.schedule and one.next_tick and is_scheduled is False:
        return Action(one.name, What.SCHEDULE, one.content, f"{reason}; next look {one.next_tick.isoformat()}")
    if is_scheduled and not one.spec.trigger.schedule:
        return Action(one.name, What.UNSCHEDULE, one.content, f"{reason}; it has no schedule any more")
    return Action(one.name, What.NONE, one.content, reason)
