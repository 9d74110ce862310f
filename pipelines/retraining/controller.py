"""The controller: looks at all Retrainings of a namespace, does what `decide` says, and writes what has become of them.

All that it must know stands in the resources' status and on the server of runs, so that it can be killed at any moment:
the next one looks, and a run that was made is found by its content and name.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cosyflow.errors import CosyFlowError, OutageError
from cosyflow.progress import say
from cosyflow.run.record import Record
from pipelines.retraining.cluster import FLUX_GROUP, Cluster
from pipelines.retraining.decision import SUCCEEDED, WORKING, Action, Observed, What, decide
from pipelines.retraining.health import Health
from pipelines.retraining.looking import Looks, Subject, remembered
from pipelines.retraining.model import COMMIT, HealthyWhen, Retraining
from pipelines.retraining.progress import Progress, progress_of
from pipelines.retraining.registry import Verdict, verdicts
from pipelines.retraining.server import Server
from pipelines.retraining.status import (
    SERVER_REFUSES,
    SERVER_UNREACHABLE,
    Object,
    Trouble,
    counting,
    event_of,
    status_of,
)
from pipelines.submitting import ui_address

BUSY_SECONDS, IDLE_SECONDS = 10.0, 60.0
"""Until the next look, while runs work or are waited for, and while none are."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""After a failure, doubled each time."""


def _now() -> datetime:
    return datetime.now(UTC)


class Controller:
    """Looks again and again.

    Args:
        server_of: the server of runs, as a namespace of it sees it.
        leads: asked before anything is started or ended: another process may lead by now.
    """

    def __init__(
        self,
        cluster: Cluster,
        server_of: Callable[[str | None], Server],
        health: Health,
        leads: Callable[[], bool] = lambda: True,
        now: Callable[[], datetime] = _now,
    ) -> None:
        self._cluster, self._server_of, self._health = cluster, functools.cache(server_of), health
        self._leads, self._now = leads, now
        self._looks = Looks()
        self._wake = threading.Event()

    def run(self, ended: threading.Event) -> None:
        """Looks until `ended` is set, at once when a Retraining is declared anew."""
        threading.Thread(target=self._cluster.watch, args=(self._wake.set, ended.is_set), daemon=True).start()
        pause = FIRST_PAUSE
        while not ended.is_set():
            self._wake.clear()
            if not self._leads():  # who leads by now, or this one again, knows in a moment
                ended.wait(FIRST_PAUSE)
                continue
            wait, good = self._attempt()
            pause = FIRST_PAUSE if good else min(2 * pause, LONGEST_PAUSE)
            if not ended.is_set():
                self._wake.wait(wait if good else pause)

    def stop(self) -> None:
        """Lets `run` see that it has ended."""
        self._wake.set()

    def _attempt(self) -> tuple[float, bool]:
        try:
            return self.look()
        except CosyFlowError as error:
            say("reconcile", f"{error}")
        except Exception as defect:  # one bad look must not end all
            say("reconcile", f"failed: {type(defect).__name__}: {defect}")
        self._health.values["failures"] += 1
        self._health.alive()
        return 0.0, False

    def look(self) -> tuple[float, bool]:
        """One look at all. Returns the seconds until the next, and whether every server answered.

        Raises:
            OutageError, CosyFlowError: the API server of Kubernetes does not answer, or refuses.
        """
        now = self._now()
        items = [item for item in self._cluster.retrainings() if not item["metadata"].get("deletionTimestamp")]
        self._say_commits(items)
        self._looks.forget_all_but({item["metadata"]["uid"] for item in items})
        subjects = {subject.name: subject for subject in (self._looks.at(item, now) for item in items)}
        observed = self._observed(subjects)
        ready = {name: one for name, one in subjects.items() if one.found.trouble is None}
        wanted = [one.wanted(one.one.spec) for one in ready.values() if one.one]
        actions = {action.retraining: action for action in decide(wanted, observed, now)}
        for name, action in actions.items():
            if action.action in (What.START, What.REPLACE) and self._leads():
                subjects[name], started = self._start(subjects[name], action, now)
                observed += started
        for name, subject in subjects.items():
            self._write(self._seen(subject, actions.get(name), observed), now)
        self._health.looked(len(subjects))
        good = not any(one.found.trouble and one.one for one in subjects.values())
        self._health.values["failures"] += not good
        return _pause(list(subjects.values()), list(actions.values()), now), good

    def _say_commits(self, items: Sequence[Object]) -> None:
        """Annotates what Flux applies, and says no commit, with the one of its Kustomization."""
        known: dict[tuple[str, str], str] = {}
        for metadata in (item["metadata"] for item in items):
            labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
            place, name = labels.get(f"{FLUX_GROUP}/namespace"), labels.get(f"{FLUX_GROUP}/name")
            if place and name and COMMIT not in annotations:
                if (place, name) not in known:
                    known[place, name] = self._cluster.revision(place, name)
                if known[place, name]:
                    metadata["annotations"] = {**annotations, COMMIT: known[place, name]}

    def _observed(self, subjects: dict[str, Subject]) -> list[Observed]:
        """The runs that the servers and the status know. Who cannot be looked at is marked so."""
        observed: dict[str, Observed] = {}
        for namespace in {subject.one.spec.kfp_namespace for subject in subjects.values() if subject.one}:
            try:
                observed |= {run.id: run for run in self._server_of(namespace).runs()}
            except CosyFlowError as error:
                trouble = _trouble(error)
                for name, subject in subjects.items():
                    if subject.one and subject.one.spec.kfp_namespace == namespace and not subject.found.trouble:
                        subjects[name] = subject.in_trouble(trouble)
        for subject in subjects.values():
            observed = {run.id: run for run in remembered(subject)} | observed
        return sorted(observed.values(), key=lambda run: run.started)

    def _start(self, subject: Subject, action: Action, now: datetime) -> tuple[Subject, list[Observed]]:
        one = subject.one
        if one is None:
            return subject, []
        server = self._server_of(one.spec.kfp_namespace)
        try:
            started = server.start(one, action, one.origin)
        except CosyFlowError as error:
            say("reconcile", f"{one.name}: {error}")
            return subject.in_trouble(_trouble(error)), []
        self._health.values["starts"] += 1
        say("reconcile", f"{one.name}: run {started} of {action.content[:12]}: {action.reason}")
        return subject, [
            Observed(started, one.name, action.content, one.spec.retry, WORKING, now, None, action.tick, action.again)
        ]

    def _seen(self, subject: Subject, action: Action | None, observed: Sequence[Observed]) -> Subject:
        """With all that its status says."""
        one, content = subject.one, subject.found.content
        if one is None or action is None:
            return subject
        runs = [run for run in observed if run.retraining == one.name or run.content == content]
        found = replace(subject.found, action=action, runs=runs)
        if run := counting(runs, content):
            server = self._server_of(one.spec.kfp_namespace)
            progress = self._progress(one, run, subject.before, server)
            url = f"{ui_address(one.settings, server.host)}/#/runs/details/{run.id}"
            found = replace(found, url=url, progress=progress, verdicts=_verdicts(one, run, progress))
        return replace(subject, found=found)

    def _progress(self, one: Retraining, run: Observed, before: Mapping[str, object], server: Server) -> Progress:
        """How far a run is; of one that has ended it is asked once."""
        known = before.get("run")
        same = isinstance(known, dict) and known.get("id") == run.id and known.get("state") == run.state
        if same and run.state != WORKING and isinstance(known, dict) and known.get("stage"):
            registered = before.get("registered")
            listed = tuple(registered) if isinstance(registered, list) else ()
            return Progress(known["stage"], known.get("reason", ""), tuple(known.get("losses", ())), listed)
        progress = progress_of(one.settings, run.id)
        if run.state in (WORKING, SUCCEEDED) or progress.reason:
            return progress
        try:
            return replace(progress, reason=server.error(run.id))
        except CosyFlowError:
            return progress

    def _write(self, subject: Subject, now: datetime) -> None:
        before = subject.before
        status = status_of(subject.found, before, now)
        if status == before or not self._leads():
            return
        try:
            self._cluster.write_status(subject.item, status)
            if event := event_of(status, before):
                self._cluster.report(subject.item, event, now)
        except OutageError:
            raise
        except CosyFlowError as error:  # of one Retraining; the others have theirs
            say("reconcile", f"{subject.name}: {error}")


def _trouble(error: CosyFlowError) -> Trouble:
    return Trouble(SERVER_UNREACHABLE if isinstance(error, OutageError) else SERVER_REFUSES, str(error))


def _verdicts(one: Retraining, run: Observed, progress: Progress) -> tuple[Verdict, ...] | None:
    if one.spec.healthy_when is not HealthyWhen.PROMOTED or run.state != SUCCEEDED:
        return None
    return verdicts(Record.of(one.settings).tracking, progress.registered)


def _pause(subjects: Sequence[Subject], actions: Sequence[Action], now: datetime) -> float:
    """Seconds until the next look."""
    if any(action.action in (What.START, What.REPLACE, What.WAIT) for action in actions):
        return BUSY_SECONDS
    until = [now + timedelta(seconds=IDLE_SECONDS)]
    until += [one.found.clock.next_tick for one in subjects if one.found.clock.next_tick]
    return max((min(until) - now).total_seconds(), FIRST_PAUSE)
