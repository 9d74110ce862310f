"""Follows one attempt of a training job from its creation to its end, whatever the API server does meanwhile."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cosyflow.errors import CosyFlowError
from cosyflow.launch.client import Cluster, Unreachable
from cosyflow.launch.follow import state
from cosyflow.launch.follow.log import PodLog
from cosyflow.launch.follow.timeline import Timeline
from cosyflow.launch.objects import Object
from cosyflow.launch.settings import JobSettings

WATCH_SECONDS = 10
WAITING_WATCH_SECONDS = 2
RETRY_SECONDS = 2.0
DRAIN_SECONDS = 15.0
SHOWN_LINES = 20
SEARCHED_LINES = 200
SHOWN_EVENTS = 5
USER_ERROR = re.compile(r"^error: (?P<message>.+)$")
OTHER_ERROR = re.compile(r"^(?:\[rank\d+\]:\s*)?(?P<message>[A-Za-z_][\w.]*(?:Error|Exception): .+)$")


@dataclass(frozen=True)
class End:
    """How an attempt ended. Only one that failed while it ran is worth another attempt.

    Attributes:
        cause: what the training itself said, to see whether two attempts failed for the same reason.
    """

    kind: Literal["succeeded", "failed", "deleted", "stuck"]
    reason: str = ""
    cause: str = ""


class Follower:
    """Follows a job.

    Args:
        job: as the API server answered when it was made or found.
        log: file that the output of the first pod is added to.
    """

    def __init__(
        self, cluster: Cluster, job: Object, num_nodes: int, settings: JobSettings, timeline: Timeline, log: Path
    ) -> None:
        self.name: str = job["metadata"]["name"]
        self._uid: str = job["metadata"]["uid"]
        self._cluster, self._kind, self._num_nodes, self._settings = cluster, cluster.kind, num_nodes, settings
        self._timeline, self._log_file = timeline, log
        self._log: PodLog | None = None
        self._waiting: state.Waiting | None = None
        self._waits_since = self._trouble_since = time.monotonic()
        self._runs = False

    def follow(self) -> End:
        """Waits for the end.

        Raises:
            CosyFlowError: the API server refuses a call, or is unreachable for longer than the settings allow.
        """
        lost_since: float | None = None
        while True:
            try:
                end = self._look()
            except Unreachable as trouble:
                if lost_since is None:
                    lost_since = time.monotonic()
                    self._timeline.add("api-lost", f"the API server is unreachable: {trouble}")
                if time.monotonic() - lost_since > self._settings.outage_seconds:
                    raise CosyFlowError(
                        f"the API server is unreachable for {self._settings.outage_seconds:.0f} s ({trouble});"
                        f" {self.name} saves a checkpoint and ends, unless the same command is given again at once"
                    ) from None
                time.sleep(RETRY_SECONDS)
                continue
            if lost_since is not None:
                lost_since = None
                self._timeline.add("api-back", "the API server answers again")
            if end is not None:
                return end

    def _look(self) -> End | None:
        """Looks once, and waits for a change when the job has not ended."""
        job = self._cluster.get(self.name)
        if job is None or job["metadata"]["uid"] != self._uid:
            self._finish_log()
            return End("deleted", f"the job {self.name} was deleted while it was followed")
        pods = self._cluster.pods(self.name)
        self._follow_log(pods)
        ending = self._kind.ending(job)
        if ending is not None:
            self._finish_log()
            return End("succeeded") if ending == "succeeded" else self._explain_failure(job, pods)
        stuck = self._check_waiting(job, pods)
        if stuck is not None:
            return stuck
        self._cluster.wait_for_change(job, WAITING_WATCH_SECONDS if self._waiting else WATCH_SECONDS)
        return None

    def _follow_log(self, pods: Sequence[Object]) -> None:
        if self._log is None:
            first = [pod for pod in pods if self._kind.is_first_pod(self.name, pod) and state.started(pod)]
            self._log = PodLog(self._cluster, first[0]["metadata"]["name"], self._log_file) if first else None

    def _finish_log(self) -> None:
        if self._log is not None:
            self._log.finish(DRAIN_SECONDS)

    def _check_waiting(self, job: Object, pods: Sequence[Object]) -> End | None:
        """Says what pods wait for when that changes; the end when they have waited for too long."""
        if self._kind.is_suspended(job):
            waiting: state.Waiting | None = state.IN_QUEUE
        else:
            waiting = state.explain_waiting(pods, self._num_nodes, self._kind.container)
        now = time.monotonic()
        if waiting is None:
            self._waiting = None
            if not self._runs:
                self._runs = True
                self._timeline.add("running", f"all {self._num_nodes} pods of {self.name} run")
            self._waits_since = now
            return None
        if waiting.kind == "queue":
            self._waits_since = now
        if self._waiting is None or waiting.kind != self._waiting.kind:
            self._trouble_since = now
        if waiting != self._waiting:
            self._timeline.add("waiting", waiting.message, kind=waiting.kind)
        self._waiting = waiting
        limits = {"image": self._settings.pull_seconds, "config": self._settings.pull_seconds}
        limit = limits.get(waiting.kind, self._settings.pending_seconds)
        since = self._trouble_since if waiting.kind in limits else self._waits_since
        if now - since <= limit:
            return None
        reason = f"{waiting.message} (for {now - since:.0f} s)"
        if waiting.kind in ("no-pods", "starting"):  # the others are in the cluster's own words already
            names = [self.name, *state.waiting_pods(pods)[:1]]
            events = [event for name in names for event in self._cluster.warnings(name)]
            reason += "".join(f"; {event}" for event in events[-1:])
        return End("stuck", reason)

    def _explain_failure(self, job: Object, pods: Sequence[Object]) -> End:
        """Shows the last lines and the events of the pods that failed; the reason is that of the first."""
        failures = state.failures(pods, self._kind.container)
        causes: list[str] = []
        for failure in failures:
            lines = self._cluster.tail(failure.pod, SEARCHED_LINES)
            events = self._cluster.warnings(failure.pod)[-SHOWN_EVENTS:]
            causes += [cause for cause in [find_cause(lines)] if cause]
            lines_shown = [
                str(failure),
                *(f"| {line}" for line in lines[-SHOWN_LINES:]),
                *(f"event {event}" for event in events),
            ]
            self._timeline.add("pod-failed", "\n".join(lines_shown), pod=failure.pod, status=failure.status)
        reasons = [str(failures[0])] if failures else [self._kind.reason(job)]
        if self._kind.ran_too_long(job):
            return End("stuck", self._kind.reason(job))
        cause = causes[0] if causes else ""
        return End("failed", ": ".join([*reasons, *([cause] if cause else [])]), cause)


def find_cause(lines: Sequence[str]) -> str:
    """The error in one line: a user's error where there is one, else the last exception but torchrun's own."""
    users = [found["message"] for line in lines if (found := USER_ERROR.match(line))]
    if users:
        return users[0]
    others = [found["message"] for line in lines if (found := OTHER_ERROR.match(line))]
    return next((message for message in reversed(others) if "ChildFailedError" not in message), "")
