"""A training job's attempts, one after the other, until one succeeds or there is no hope."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.launch.client import Cluster, Taken, Unreachable
from cosyflow.launch.follow import state
from cosyflow.launch.follow.follower import End, Follower
from cosyflow.launch.follow.timeline import Timeline
from cosyflow.launch.objects import Object, label
from cosyflow.launch.pods import to_yaml
from cosyflow.launch.spec import ATTEMPT_LABEL, JOB_LABEL, RUN_LABEL, JobSpec
from cosyflow.training.failure import ATTEMPT_VARIABLE, WORK_VARIABLE, failure_uri, read_failure

Value = TypeVar("Value")

GONE_SECONDS = 120.0
POLL_SECONDS = 2.0
JOB_FILE = "job.yaml"


class Attempts:
    """The attempts of one job.

    Args:
        spec: of the first attempt.
        model_dir: gets the manifest of the newest attempt, and what a failed one leaves for the next.
        work: digest of what is trained with what; what failed for certain is not started again for the same.
        log: file that the output of the first pod is added to.
    """

    def __init__(
        self,
        cluster: Cluster,
        spec: JobSpec,
        model_dir: str,
        work: str,
        timeline: Timeline,
        log: Path,
    ) -> None:
        self._cluster, self._kind = cluster, cluster.kind
        self._spec, self._timeline, self._log = spec, timeline, log
        self._model_dir, self._work = model_dir, work
        self._patience = spec.settings.outage_seconds

    def check_free(self) -> None:
        """Raises CosyFlowError when another run trains into the same folder."""
        newest = self._newest()
        if newest is not None and self._kind.ending(newest) is None and not self._is_ours(newest):
            raise CosyFlowError(self._refusal(newest))

    def to_the_end(self) -> End:
        """Follows attempt after attempt.

        Raises:
            CosyFlowError: an earlier attempt failed and would fail again, so that no job was made; or the API server
                refuses a call or is unreachable for too long.
        """
        job = self._adopt_or_create()
        restarts, last_cause = 0, ""
        while True:
            end, name = self._follow(job), job["metadata"]["name"]
            failure = read_failure(self._model_dir, self._work) if end.kind == "failed" else None
            if failure is not None and failure.attempt == name:  # a pod that lost another may have ended before that
                end = replace(end, reason=failure.cause, cause=failure.cause)
            self._timeline.add(end.kind, f"{name} {end.kind}" + (f": {end.reason}" * bool(end.reason)))
            if end.kind == "stuck":
                self._delete(job)
            if end.kind != "failed":
                return end
            if failure is not None and failure.is_certain:
                return replace(end, reason=f"{end.reason} (it would fail again, and is not started again)")
            if end.cause and end.cause == last_cause:
                return replace(end, reason=f"failed twice for the same reason: {end.reason}")
            if restarts == self._spec.settings.max_restarts:
                return replace(end, reason=f"{end.reason} (after {restarts} restarts)")
            restarts, last_cause = restarts + 1, end.cause
            self._timeline.add(
                "restart",
                f"starts all pods again from the last checkpoint ({restarts} of {self._spec.settings.max_restarts})",
            )
            self._wait_until_gone(job)
            job = self._patiently(partial(self.create, attempt_of(job) + 1))

    def _follow(self, job: Object) -> End:
        follower = Follower(self._cluster, job, self._spec.num_nodes, self._spec.settings, self._timeline, self._log)
        try:
            return follower.follow()
        except KeyboardInterrupt:
            self._timeline.add("interrupted", f"{follower.name} is deleted; its pods save a checkpoint first")
            self._delete(job)
            raise

    def _adopt_or_create(self) -> Object:
        """The newest attempt while it goes on or when it succeeded, else a new one."""
        newest = self._newest()
        if newest is None:
            self._check_worthwhile()
            return self._patiently(partial(self.create, 0))
        ending = self._kind.ending(newest)
        if self._is_ours(newest) and ending != "failed":
            return self._adopted(newest)
        if ending is None:
            raise CosyFlowError(self._refusal(newest))
        self._check_worthwhile()
        self._wait_until_gone(newest)
        return self._patiently(partial(self.create, attempt_of(newest) + 1))

    def _check_worthwhile(self) -> None:
        """Raises CosyFlowError when an attempt at this work failed in a way that the next would fail in too."""
        failure = read_failure(self._model_dir, self._work)
        if failure is not None and failure.is_certain:
            message = (
                f"{failure.attempt} failed, and the same would fail again: {failure.cause}. Nothing was started; to try"
                f" the same on purpose remove {failure_uri(self._model_dir)}, or start another run"
            )
            self._timeline.add("not-started", message)
            raise CosyFlowError(message)

    def _newest(self) -> Object | None:
        """The job with the highest attempt, or one of the same name that bears no label of ours."""
        jobs = self._patiently(partial(self._cluster.jobs, f"{JOB_LABEL}={self._spec.base}"))
        return max(jobs, key=attempt_of) if jobs else self._patiently(partial(self._cluster.get, self._spec.base))

    def create(self, attempt: int) -> Object:
        spec = replace(self._spec, attempt=attempt)
        spec = replace(spec, env=(*spec.env, (WORK_VARIABLE, self._work), (ATTEMPT_VARIABLE, spec.name)))
        if attempt:
            spec = replace(spec, arguments=_resuming(spec.arguments))
        manifest = self._kind.manifest(spec)
        try:
            job = self._cluster.create(manifest)
        except Taken:
            found = self._cluster.get(spec.name)
            if found is None:
                raise Unreachable(f"{spec.name} is there and is not there") from None
            if not self._is_ours(found):
                raise CosyFlowError(self._refusal(found)) from None
            return self._adopted(found)
        storage.write_text(storage.join(self._model_dir, JOB_FILE), to_yaml(manifest))
        self._timeline.add(
            "created", f"created {spec.namespace}/{spec.name}", attempt=attempt, uid=job["metadata"]["uid"]
        )
        return job

    def _adopted(self, job: Object) -> Object:
        name = job["metadata"]["name"]
        self._timeline.add("adopted", f"goes on following {name}", attempt=attempt_of(job), uid=job["metadata"]["uid"])
        return job

    def _is_ours(self, job: Object) -> bool:
        return label(job, RUN_LABEL) == self._spec.run

    def _refusal(self, job: Object) -> str:
        name = f"{self._spec.namespace}/{job['metadata']['name']}"
        other = label(job, RUN_LABEL) or "unknown to us"
        return (
            f"training job {name} is there already and belongs to another run ({other}), which would write into the"
            f" same folder; wait for its end, or delete it: kubectl -n {self._spec.namespace} delete"
            f" {self._kind.plural} {job['metadata']['name']}"
        )

    def _delete(self, job: Object) -> None:
        self._patiently(partial(self._cluster.delete, job["metadata"]["name"], job["metadata"]["uid"]))

    def _wait_until_gone(self, job: Object) -> None:
        """Two gangs must not write into one folder: the pods of the last attempt end first."""
        name = job["metadata"]["name"]
        limit = time.monotonic() + GONE_SECONDS
        while left := state.running(self._patiently(partial(self._cluster.pods, name))):
            if time.monotonic() > limit:
                raise CosyFlowError(
                    f"{', '.join(left)}: still running {GONE_SECONDS:.0f} s after its job {name} failed"
                )
            time.sleep(POLL_SECONDS)

    def _patiently(self, call: Callable[[], Value]) -> Value:
        return patiently(call, self._patience)


def attempt_of(job: Object) -> int:
    """The number of a job's attempt, from 0."""
    return int(label(job, ATTEMPT_LABEL) or 0)


def patiently(call: Callable[[], Value], seconds: float) -> Value:
    """What a call returns, when the API server answers. Raises CosyFlowError when it does not for some seconds."""
    limit = time.monotonic() + seconds
    while True:
        try:
            return call()
        except Unreachable as trouble:
            if time.monotonic() > limit:
                raise CosyFlowError(f"the API server is unreachable: {trouble}") from None
            time.sleep(POLL_SECONDS)


def _resuming(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments of a further attempt, which goes on whatever the options of the first were."""
    return (*arguments, "--resume", "auto")
