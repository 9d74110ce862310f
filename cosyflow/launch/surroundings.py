"""What the launcher's own pod says: its run, what the training ends with, and the image to train with."""

from __future__ import annotations

from dataclasses import dataclass

from cosyflow.launch.client import Cluster
from cosyflow.launch.objects import Object, label
from cosyflow.training.parent import Parent

RUN_LABELS = ("pipeline/runid", "workflows.argoproj.io/workflow")
OWNER_KIND = "Workflow"
MAIN_CONTAINER = "main"
"""Argo's name for the container that does the work of a step."""


@dataclass(frozen=True)
class Surroundings:
    """All empty outside of a pod.

    Attributes:
        run: id of the pipeline's run.
        image: of the pod.
        owner: the pod's Workflow as an ownerReference.
        parent: that Workflow, which outlives a launcher that is started again; the pod itself where there is none.
    """

    run: str = ""
    image: str = ""
    owner: tuple[tuple[str, str], ...] = ()
    parent: Parent | None = None


def look_around(cluster: Cluster) -> Surroundings:
    pod = cluster.own_pod()
    return Surroundings() if pod is None else read_pod(pod)


def read_pod(pod: Object) -> Surroundings:
    """What the launcher's pod says."""
    metadata = pod["metadata"]
    run = next((label(pod, name) for name in RUN_LABELS if label(pod, name)), "")
    workflows = [reference for reference in metadata.get("ownerReferences") or [] if reference["kind"] == OWNER_KIND]
    owner = tuple((key, workflows[0][key]) for key in ("apiVersion", "kind", "name", "uid")) if workflows else ()
    containers = pod["spec"]["containers"]
    main = next((container for container in containers if container["name"] == MAIN_CONTAINER), containers[0])
    within = f"namespaces/{metadata['namespace']}"
    if workflows:
        workflow = workflows[0]
        parent = Parent(f"/apis/{workflow['apiVersion']}/{within}/workflows/{workflow['name']}", workflow["uid"])
    else:
        parent = Parent(f"/api/v1/{within}/pods/{metadata['name']}", metadata["uid"])
    return Surroundings(run, main["image"], owner, parent)
