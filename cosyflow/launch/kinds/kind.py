"""What the launcher must know of a kind of job: how it is written, where its pods are, and how it ended."""

from __future__ import annotations

from typing import Literal, Protocol

from cosyflow.launch.objects import Object
from cosyflow.launch.spec import JobSpec

Ending = Literal["succeeded", "failed"]


class JobKind(Protocol):
    """A kind of job. It makes no calls: all that it says, it says of objects that it is given."""

    @property
    def name(self) -> str:
        """As its objects have it in `kind`."""

    @property
    def group(self) -> str:
        """Of the API that serves it."""

    @property
    def version(self) -> str:
        """Of that API."""

    @property
    def plural(self) -> str:
        """As the API's paths have it."""

    @property
    def container(self) -> str:
        """Name of the container that trains, in each of its pods."""

    def manifest(self, spec: JobSpec) -> Object:
        """The object of a spec."""

    def pod_selector(self, job: str) -> str:
        """The label by which the pods of the job of this name are found."""

    def is_first_pod(self, job: str, pod: Object) -> bool:
        """Whether a pod of the job of this name has rank 0, whose output is the training's."""

    def is_suspended(self, job: Object) -> bool:
        """Whether it waits to be let in, and its pods are not made before."""

    def ending(self, job: Object) -> Ending | None:
        """How it ended; None while it has not."""

    def reason(self, job: Object) -> str:
        """Why it failed, in its controller's words; empty when it did not."""

    def ran_too_long(self, job: Object) -> bool:
        """Whether it failed because it ran for longer than it may (JobSettings.deadline_seconds)."""
