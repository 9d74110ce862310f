"""Where a training would run, told without starting it."""

from __future__ import annotations

from cosyflow.launch.pytorchjob.client import in_a_pod


def is_a_job(launcher: str) -> bool:
    """Whether a training's processes are pods of a job of the cluster."""
    return launcher == "pytorchjob" or (launcher == "auto" and in_a_pod())


def trains_here(launcher: str) -> bool:
    """Whether the processes will be on the machine that this one is on: not so in a pod, whose tasks have their own."""
    return launcher != "pytorchjob" and not in_a_pod()
