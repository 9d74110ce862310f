"""What the pods of a job say: why they wait, and how they failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cosyflow.launch.objects import Object, condition

PULL_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})

WaitKind = Literal["queue", "no-pods", "image", "config", "scheduling", "starting"]


@dataclass(frozen=True)
class Waiting:
    """Why not all pods of a job run: the kind of trouble, and the cluster's words for it."""

    kind: WaitKind
    message: str


IN_QUEUE = Waiting("queue", "waits in the queue to be admitted")


@dataclass(frozen=True)
class PodFailure:
    """A pod that ended badly: its exit status and the kubelet's reason."""

    pod: str
    status: int | None
    reason: str

    def __str__(self) -> str:
        status = "" if self.status is None else f"exit status {self.status}"
        return f"{self.pod}: " + ", ".join(part for part in (status, self.reason) if part)


def failures(pods: Sequence[Object], container: str) -> list[PodFailure]:
    """The pods that failed by themselves, the first to fail first.

    Args:
        container: name of the one that trains; what others inject does not count.
    """
    found: list[tuple[str, PodFailure]] = []
    for pod in pods:
        status, name = pod.get("status", {}), pod["metadata"]["name"]
        states = [entry.get("state", {}) for entry in _containers(pod, container)]
        ended = [state["terminated"] for state in states if "terminated" in state]
        bad = [entry for entry in ended if entry.get("exitCode") != 0]
        if bad:
            first = min(bad, key=lambda entry: entry.get("finishedAt") or "")
            reason = "" if first.get("reason") == "Error" else first.get("reason", "")
            found.append((first.get("finishedAt") or "", PodFailure(name, first.get("exitCode"), reason)))
        elif status.get("phase") == "Failed":  # evicted, or its node is lost
            reason = ": ".join(part for part in (status.get("reason", ""), status.get("message", "")) if part)
            found.append(("", PodFailure(name, None, reason)))
    return [failure for _, failure in sorted(found, key=lambda entry: entry[0])]


def started(pod: Object) -> bool:
    """Whether its container has run, so that there is a log."""
    return pod.get("status", {}).get("phase") in ("Running", "Succeeded", "Failed")


def running(pods: Sequence[Object]) -> list[str]:
    """The names of the pods that run, or may yet."""
    return [
        pod["metadata"]["name"] for pod in pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    ]


def explain_waiting(pods: Sequence[Object], num_nodes: int, container: str) -> Waiting | None:
    """Why not all pods run yet, the worst trouble first; None when they do.

    Args:
        container: name of the one that trains.
    """
    if not pods:
        return Waiting("no-pods", "its controller has not made its pods yet")
    troubles = list(_troubles(pods, container))
    order: tuple[WaitKind, ...] = ("image", "config", "scheduling", "starting")
    if troubles:
        return min(troubles, key=lambda trouble: order.index(trouble.kind))
    if len(pods) < num_nodes:
        return Waiting("no-pods", f"its controller has made {len(pods)} of {num_nodes} pods")
    return None


def waiting_pods(pods: Sequence[Object]) -> list[str]:
    """The names of the pods that do not run yet."""
    return [pod["metadata"]["name"] for pod in _not_started(pods)]


def _troubles(pods: Sequence[Object], container: str) -> Iterator[Waiting]:
    for pod in _not_started(pods):
        name = pod["metadata"]["name"]
        for entry in _containers(pod, container):
            waiting = entry.get("state", {}).get("waiting", {})
            words = _join(waiting)
            if waiting.get("reason") in PULL_REASONS:
                yield Waiting("image", f"{name} cannot get the image {entry.get('image', '')}: {words}")
            elif waiting.get("reason") in CONFIG_REASONS:
                yield Waiting("config", f"{name} cannot start: {words}")
        unscheduled = condition(pod, "PodScheduled", "False")
        if unscheduled:
            yield Waiting("scheduling", f"{name} has no node: {_join(unscheduled)}")
        else:
            yield Waiting("starting", f"{name} starts")


def _not_started(pods: Sequence[Object]) -> Iterator[Object]:
    return (pod for pod in pods if not started(pod))


def _containers(pod: Object, name: str) -> list[Object]:
    status = pod.get("status", {})
    own = [entry for entry in status.get("containerStatuses") or [] if entry.get("name") == name]
    return [*(status.get("initContainerStatuses") or []), *own]


def _join(words: Mapping[str, str]) -> str:
    return ": ".join(" ".join(part.split()) for part in (words.get("reason", ""), words.get("message", "")) if part)
