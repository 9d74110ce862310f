"""The status of a Retraining in words that tools know (kstatus): one pure function of what was found at a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pipelines.retraining.clock import Clock
from pipelines.retraining.decision import FAILED, SUCCEEDED, WORKING, Action, Observed, What
from pipelines.retraining.model import HealthyWhen, Spec
from pipelines.retraining.progress import Progress
from pipelines.retraining.registry import Verdict

Object = dict[str, Any]


class Kind(StrEnum):
    """Which of the conditions holds; the other two do not, so that tools never see two answers."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


REACHABLE = "ServerReachable"
"""A further condition: whether Kubeflow Pipelines answers."""
INVALID, SERVER_UNREACHABLE, SERVER_REFUSES, DATA_UNREACHABLE = (
    "Invalid", "ServerUnreachable", "ServerRefuses", "DataUnreachable",
)  # fmt: skip
RUNNING, RUN_FAILED = "Running", "RunFailed"
LONGEST_MESSAGE = 1024


@dataclass(frozen=True)
class Headline:
    """The condition that holds, and why."""

    kind: Kind
    reason: str
    message: str


@dataclass(frozen=True)
class Trouble:
    """Why a Retraining could not be looked at, or nothing be done for it: one of the reasons above, and a message."""

    reason: str
    message: str


@dataclass(frozen=True)
class DataSeen:
    """The data of a Retraining.

    Attributes:
        changed: when they were seen to be others than before; None where they never were.
        tick: the latest that they were looked at for.
        generation: the declaration that they were looked at for.
    """

    digest: str
    changed: datetime | None = None
    tick: datetime | None = None
    generation: int | None = None


@dataclass(frozen=True)
class Found:
    """What was found of a Retraining at a look.

    Attributes:
        spec: None where it is wrong.
        content: hash of what it wants now; "" where that is not known.
        data: as they were looked at last; None where they could not be.
        action: that was decided; None where nothing could be.
        runs: its own and those of its content, the oldest first.
        url: of the page of the run that counts.
        verdicts: of the gate on the versions of that run; None where the registry was not asked or does not answer.
    """

    generation: int
    spec: Spec | None = None
    content: str = ""
    commit: str = ""
    data: DataSeen | None = None
    clock: Clock = field(default_factory=Clock)
    action: Action | None = None
    runs: Sequence[Observed] = ()
    url: str = ""
    progress: Progress = field(default_factory=Progress)
    verdicts: tuple[Verdict, ...] | None = None
    trouble: Trouble | None = None


def counting(runs: Sequence[Observed], content: str) -> Observed | None:
    """The run that stands for a content: of those of its newest tick one that works, else has succeeded, else failed.

    So a duplicate that ended without having done anything counts for nothing next to the run that it was one of.
    """
    order = (FAILED, SUCCEEDED, WORKING)
    never = datetime.min.replace(tzinfo=UTC)
    alike = [run for run in runs if run.content == content]
    return max(alike, key=lambda run: (run.tick or never, run.again, order.index(run.state), run.started), default=None)


def headline(found: Found, before: Mapping[str, Any]) -> Headline:
    """The condition that holds now.

    Args:
        before: the status until now.
    """
    if found.trouble or found.spec is None or found.action is None:
        return _of_trouble(found.trouble or Trouble(INVALID, "it cannot be read"), found, before)
    spec, action, run = found.spec, found.action, counting(found.runs, found.content)
    if spec.suspend:
        return Headline(Kind.READY, "Suspended", "spec.suspend: nothing is started")
    if run is None:
        if action.action is not What.NONE:
            return Headline(Kind.RECONCILING, "Waiting", action.reason)
        own = [one for one in found.runs if action.retraining == one.retraining]
        if own and own[-1].state == FAILED:
            text = f"run {own[-1].id} of older content failed; newer content: {action.reason}"
            return Headline(Kind.STALLED, RUN_FAILED, text)
        return Headline(Kind.READY, "NotTriggered", action.reason)
    return _of_run(spec, action, run, found)


def _of_run(spec: Spec, action: Action, run: Observed, found: Found) -> Headline:
    progress = found.progress
    if run.state == WORKING:
        text = f"run {run.id} works" + (f": {progress.stage}" if progress.stage else "")
        accepted = spec.healthy_when is HealthyWhen.ACCEPTED
        return Headline(Kind.READY if accepted else Kind.RECONCILING, RUNNING, text)
    if run.state == FAILED:
        again = "raise spec.retry to repeat it" if action.action is What.NONE else action.reason
        return Headline(Kind.STALLED, RUN_FAILED, f"run {run.id} failed: {progress.reason or 'see its page'}; {again}")
    done = f"run {run.id} has succeeded"
    if action.action is What.WAIT and action.tick:
        return Headline(Kind.RECONCILING, "Waiting", f"{done}; {action.reason}")
    if spec.healthy_when is HealthyWhen.PROMOTED:
        return _of_verdicts(found.verdicts, done)
    return Headline(Kind.READY, "Succeeded", done)


def _of_verdicts(verdicts: Sequence[Verdict] | None, done: str) -> Headline:
    if verdicts is None:
        return Headline(Kind.RECONCILING, "AwaitsPromotion", f"{done}; the registry has not answered yet")
    if not verdicts:
        return Headline(Kind.STALLED, "NothingRegistered", f"{done} and has registered nothing that could be promoted")
    champion = next((one.version for one in verdicts if one.is_champion), "")
    if champion:
        return Headline(Kind.READY, "Promoted", f"{done}; {champion} is the champion")
    said = "; ".join(f"{one.version}: {one.outcome}" for one in verdicts if one.outcome)
    if said:
        return Headline(Kind.STALLED, "NotPromoted", f"{done}; the gate says {said}")
    return Headline(Kind.RECONCILING, "AwaitsPromotion", f"{done}; the gate has not decided on {verdicts[0].version}")


def _of_trouble(trouble: Trouble, found: Found, before: Mapping[str, Any]) -> Headline:
    """An outage says nothing about what was seen to be done before it; what is new waits for its end."""
    if trouble.reason == INVALID:
        return Headline(Kind.STALLED, INVALID, trouble.message)
    known = {one["type"]: one for one in before.get("conditions", ())}
    for kind in (Kind.READY, Kind.STALLED):
        one = known.get(kind)
        same = before.get("observedGeneration") == found.generation
        same = same and found.content in ("", before.get("contentHash"))
        if one and one["status"] == "True" and one["reason"] not in (SERVER_REFUSES, INVALID) and same:
            return Headline(kind, one["reason"], one["message"])
    kind = Kind.STALLED if trouble.reason == SERVER_REFUSES else Kind.RECONCILING
    return Headline(kind, trouble.reason, trouble.message)


def status_of(found: Found, before: Mapping[str, Any], now: datetime) -> Object:
    """The whole status.

    Args:
        before: the status until now; `{}` for a Retraining that has none.
    """
    head = headline(found, before)
    status: Object = {"observedGeneration": found.generation, "conditions": _conditions(found, head, before, now)}
    if found.trouble and found.trouble.reason != INVALID and not found.content:
        kept = ("contentHash", "run", "registered")  # as it was last seen
        status |= {key: before[key] for key in kept if key in before}
    run = counting(found.runs, found.content)
    if run:
        status["run"] = _shown(run, found, before)
        if run.state == SUCCEEDED:
            status["lastSucceededContentHash"] = run.content
    elif found.trouble and before.get("contentHash") == found.content and "run" in before:
        status["run"] = before["run"]
    registered = found.progress.registered or (before.get("registered", ()) if _same_run(run, before) else ())
    limit = found.spec.history_limit if found.spec else 0
    own = sorted(found.runs, key=lambda one: one.started, reverse=True)[:limit]
    values: Object = {
        "contentHash": found.content,
        "commit": found.commit,
        "data": _of_data(found.data) if found.data else before.get("data"),
        "lastSucceededContentHash": before.get("lastSucceededContentHash"),
        "registered": list(registered),
        "gate": [{"version": one.version, "outcome": one.outcome} for one in found.verdicts or () if one.outcome],
        "runs": [_brief(one) for one in own] if found.action else before.get("runs"),
        "schedule": found.clock.declared,
        "lastTick": _text(found.clock.tick),
        "nextLook": _text(found.clock.next_tick),
    }
    return {**{key: value for key, value in values.items() if value}, **status}


def _of_data(data: DataSeen) -> Object:
    shown = {
        "digest": data.digest, "changed": _text(data.changed), "tick": _text(data.tick), "generation": data.generation,
    }  # fmt: skip
    return {key: value for key, value in shown.items() if value is not None}


def _conditions(found: Found, head: Headline, before: Mapping[str, Any], now: datetime) -> list[Object]:
    conditions = [_condition(kind, kind is head.kind, head, found, before, now) for kind in Kind]
    trouble = found.trouble
    if trouble and trouble.reason in (SERVER_UNREACHABLE, SERVER_REFUSES):
        said = Headline(head.kind, trouble.reason, trouble.message)
        conditions.append(_condition(REACHABLE, False, said, found, before, now))
    elif found.action:
        said = Headline(head.kind, "Answers", "")
        conditions.append(_condition(REACHABLE, True, said, found, before, now))
    return conditions


def _condition(
    name: str, holds: bool, head: Headline, found: Found, before: Mapping[str, Any], now: datetime
) -> Object:
    status = str(holds)
    known = next((one for one in before.get("conditions", ()) if one["type"] == name), None)
    since = known["lastTransitionTime"] if known and known["status"] == status else _text(now)
    return {
        "type": name,
        "status": status,
        "observedGeneration": found.generation,
        "lastTransitionTime": since,
        "reason": head.reason,
        "message": head.message[:LONGEST_MESSAGE],
    }


def _shown(run: Observed, found: Found, before: Mapping[str, Any]) -> Object:
    known = before.get("run", {}) if _same_run(run, before) else {}
    shown = {
        **_brief(run),
        "url": found.url,
        "stage": found.progress.stage or known.get("stage"),
        "reason": (found.progress.reason or known.get("reason", ""))[:LONGEST_MESSAGE],
        "losses": list(found.progress.losses) or known.get("losses"),
    }
    return {key: value for key, value in shown.items() if value}


def _brief(run: Observed) -> Object:
    shown = {
        "id": run.id, "contentHash": run.content, "state": run.state, "retry": run.retry,
        "started": _text(run.started), "finished": _text(run.finished), "tick": _text(run.tick),
    }  # fmt: skip
    return {key: value for key, value in shown.items() if value is not None}


def _same_run(run: Observed | None, before: Mapping[str, Any]) -> bool:
    return run is not None and before.get("run", {}).get("id") == run.id


def _text(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


@dataclass(frozen=True)
class Event:
    """What is reported once, when it becomes so; `kind` is "Normal" or "Warning"."""

    kind: str
    reason: str
    message: str


def event_of(status: Mapping[str, Any], before: Mapping[str, Any]) -> Event | None:
    """What is to be reported of a new status; None where it differs in details only."""
    event, old = _event(status), _event(before)
    if event is None or (old and old.reason == event.reason and _about(status) == _about(before)):
        return None
    return event


def _event(status: Mapping[str, Any]) -> Event | None:
    conditions = {one["type"]: one for one in status.get("conditions", ())}
    reachable = conditions.get(REACHABLE)
    holding = next((one for kind in Kind if (one := conditions.get(kind)) and one["status"] == "True"), None)
    if holding is None:
        return None
    if reachable and reachable["status"] == "False":
        return Event("Warning", reachable["reason"], reachable["message"])
    is_bad = holding["type"] == Kind.STALLED or holding["reason"] == DATA_UNREACHABLE
    return Event("Warning" if is_bad else "Normal", holding["reason"], holding["message"])


def _about(status: Mapping[str, Any]) -> tuple[str, str, Any]:
    invalid = next((one["message"] for one in status.get("conditions", ()) if one["reason"] == INVALID), "")
    return str(status.get("contentHash", "")), str(status.get("run", {}).get("id", "")), invalid
