"""A namespace of a test's own that enforces `restricted`, and what is deployed in it."""

from __future__ import annotations

import re
import subprocess
import uuid
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.cluster.conftest import SECRET
from tests.cluster.test_manifests import RESTRICTED, kubectl

Object = dict[str, Any]


@contextmanager
def own_namespace() -> Iterator[str]:
    name = f"cosyflow-test-{uuid.uuid4().hex[:8]}"
    succeed("create", "namespace", name)
    try:
        succeed("label", "namespace", name, RESTRICTED)
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


def succeed(*arguments: str, given: list[Object] | None = None) -> None:
    done = kubectl(*arguments, given=given)
    assert done.returncode == 0, done.stderr


def apply(objects: list[Object]) -> None:
    succeed("apply", "--server-side", "--filename", "-", given=objects)


def wait_for_deployment(namespace: str, name: str) -> None:
    succeed("--namespace", namespace, "rollout", "status", f"deployment/{name}", "--timeout=180s")


def credentials(namespace: str, access: str, key: str) -> Object:
    """The Secret of the object store, as Kubeflow Pipelines has it."""
    encoded = {name: b64encode(value.encode()).decode() for name, value in (("accesskey", access), ("secretkey", key))}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": namespace}, "data": encoded}


def set_images(objects: list[Object], images: Mapping[str, str]) -> list[Object]:
    """The objects with the images of their workloads' first containers set, by the workloads' names."""
    for item in objects:
        if item["kind"] in ("Deployment", "Job"):
            item["spec"]["template"]["spec"]["containers"][0]["image"] = images[item["metadata"]["name"]]
    return objects


@contextmanager
def forwarded(namespace: str, service: str, port: int) -> Iterator[str]:
    """The address of a service on this machine."""
    command = ["kubectl", "--namespace", namespace, "port-forward", f"service/{service}", f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
        try:
            assert forwarding.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", forwarding.stdout.readline())
            assert found
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            forwarding.terminate()
