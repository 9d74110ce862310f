"""Breaks services of the cluster, and waits until they are back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.cluster.small_training import wait_for

MISSING = {"cosyflow.dev/away": "true"}


def kill_store(core: Any, namespace: str, image: str) -> None:
    """Ends the object store's process without a goodbye; the node starts its container again, with the same volume.

    The signal comes from a container beside it, as the store's own may have no program but the server. SIGABRT, because
    the first process of a container ignores SIGKILL that comes from within.

    Args:
        image: has Python.
    """
    (pod,) = core.list_namespaced_pod(namespace, label_selector="app=minio").items
    before = _restarts(pod)
    assassin = {
        "name": f"kill-{uuid.uuid4().hex[:8]}",
        "image": image,
        "targetContainerName": "minio",
        "command": ["python3", "-c", "import os, signal; os.kill(1, signal.SIGABRT)"],
        "securityContext": {"runAsUser": 0},
    }
    core.patch_namespaced_pod_ephemeralcontainers(
        pod.metadata.name, namespace, {"spec": {"ephemeralContainers": [assassin]}}
    )

    def is_back() -> bool:
        status = core.read_namespaced_pod(pod.metadata.name, namespace)
        return _restarts(status) > before and status.status.container_statuses[0].ready

    wait_for("the store's new start", is_back)


@contextmanager
def service_away(core: Any, namespace: str, name: str) -> Iterator[None]:
    """Nothing answers at a service's address during the `with` body; its pods and their data stay."""
    core.patch_namespaced_service(name, namespace, {"spec": {"selector": MISSING}})
    try:
        wait_for("no pod behind the service", lambda: not _addresses(core, namespace, name))
        yield
    finally:
        core.patch_namespaced_service(name, namespace, {"spec": {"selector": dict.fromkeys(MISSING)}})
        wait_for("a pod behind the service", lambda: bool(_addresses(core, namespace, name)))


def _restarts(pod: Any) -> int:
    count: int = pod.status.container_statuses[0].restart_count
    return count


def _addresses(core: Any, namespace: str, name: str) -> list[Any]:
    subsets = core.read_namespaced_endpoints(name, namespace).subsets or []
    return [address for subset in subsets for address in subset.addresses or []]
