"""What the launcher's own pod tells: which run it is of, what is deleted with that, and the image to train with."""

from __future__ import annotations

from dataclasses import dataclass

from cosyflow.launch.pytorchjob.client import Cluster
from cosyflow.launch.pytorchjob.settings import Object

RUN_LABELS = ("pipeline/runid", "workflows.argoproj.io/workflow")
OWNER_KIND = "Workflow"
MAIN_CONTAINER = "main"
"""Argo's name for the container that does the work of a step."""


@dataclass(frozen=True)
class Surroundings:
    """All empty outside of a pipeline's pod. `owner` is an ownerReference."""

    run: str = ""
    image: str = ""
    owner: tuple[tuple[str, str], ...] = ()


def look_around(cluster: Cluster) -> Surroundings:
    pod = cluster.own_pod()
    return Surroundings() if pod is None else read_pod(pod)


def read_pod(pod: Object) -> Surroundings:
    """What the launcher's pod says."""
    labels = pod["metadata"].get("labels") or {}
    run = next((labels[name] for name in RUN_LABELS if labels.get(name)), "")
    workflows = [
        reference for reference in pod["metadata"].get("ownerReferences") or [] if reference["kind"] == OWNER_KIND
    ]
    owner = tuple((key, workflows[0][key]) for key in ("apiVersion", "kind", "name", "uid")) if workflows else ()
    containers = pod["spec"]["containers"]
    main = next((container for container in containers if container["name"] == MAIN_CONTAINER), containers[0])
    return Surroundings(run, main["image"], owner)
