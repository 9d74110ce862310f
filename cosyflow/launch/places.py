"""Where a training would run, known without starting it."""

from __future__ import annotations

from cosyflow.launch.client import in_a_pod
from cosyflow.launch.kinds import KINDS
from cosyflow.launch.kinds.kind import JobKind


def kind_of(launcher: str) -> JobKind | None:
    """The kind of job that a training's processes are the pods of; None where they are processes of this machine."""
    if launcher == "auto":
        return next(iter(KINDS.values())) if in_a_pod() else None
    return KINDS.get(launcher)


def trains_here(launcher: str) -> bool:
    """Whether the processes will be on the machine that this one is on: not so in a pod, whose tasks have their own."""
    return launcher not in KINDS and not in_a_pod()
