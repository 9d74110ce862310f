"""The manifests of k8s/ as the API server takes them, in a namespace of their own that enforces `restricted`."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosyflow.launch.settings import LAUNCHER_SECRET

K8S = Path(__file__).resolve().parents[2] / "k8s"
FOLDERS = [*sorted(K8S.glob("overlays/*/")), K8S / "retraining"]
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
Object = dict[str, Any]


def kubectl(*arguments: str, given: list[Object] | None = None) -> subprocess.CompletedProcess[str]:
    text = yaml.safe_dump_all(given) if given is not None else None
    return subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = f"cosyflow-test-{uuid.uuid4().hex[:8]}"
    assert kubectl("create", "namespace", name).returncode == 0
    try:
        assert kubectl("label", "namespace", name, RESTRICTED).returncode == 0
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


def render(folder: Path, namespace: str) -> list[Object]:
    """The objects of an overlay, moved into a namespace and off the node's ports, which others may have."""
    done = kubectl("kustomize", str(folder))
    assert done.returncode == 0, done.stderr
    objects = [item for item in yaml.safe_load_all(done.stdout) if item]
    for item in objects:
        if item["kind"] == "CustomResourceDefinition":
            continue
        place = item["metadata"].get("namespace", item["metadata"]["name"])
        item["metadata"]["namespace" if "namespace" in item["metadata"] else "name"] = namespace
        for port in item.get("spec", {}).get("ports", []):
            port.pop("nodePort", None)
        for subject in item.get("subjects", []):
            assert subject["namespace"] == place
            subject["namespace"] = namespace
    return objects


def pods(objects: list[Object], namespace: str) -> list[Object]:
    """A Pod of each workload, under the account that every namespace has."""
    made = []
    for item in objects:
        spec = item.get("spec", {})
        template = (spec.get("jobTemplate", {}).get("spec") or spec).get("template")
        if template:
            metadata = {"name": item["metadata"]["name"], "namespace": namespace}
            pod = {**template["spec"], "serviceAccountName": "default"}
            made.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod})
    return made


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_api_server_takes_an_overlay(folder: Path, namespace: str) -> None:
    objects = render(folder, namespace)
    options = ("--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    done = kubectl("apply", *options, "--filename", "-", given=objects)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("serverside-applied") == len(objects)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_namespace_takes_its_pods(folder: Path, namespace: str) -> None:
    if workloads := pods(render(folder, namespace), namespace):
        done = kubectl("create", "--dry-run=server", "--validate=strict", "--filename", "-", given=workloads)
        assert done.returncode == 0, done.stderr


def test_the_launchers_account_may_do_its_work_and_no_more_and_the_tasks_account_nothing_of_it(namespace: str) -> None:
    rights = ("ServiceAccount", "Role", "RoleBinding", "Secret")
    objects = [item for item in render(K8S / "overlays/testcluster", namespace) if item["kind"] in rights]
    assert kubectl("apply", "--server-side", "--filename", "-", given=objects).returncode == 0

    def may(words: str, account: str = "cosyflow-launcher", where: str = namespace) -> bool:
        """The API's own answer: `kubectl auth can-i` asks for another group's resource where it is not installed."""
        verb, path = words.split()
        resource, _, group = path.partition(".")
        resource, _, subresource = resource.partition("/")
        asked = {"namespace": where, "verb": verb, "group": group, "resource": resource, "subresource": subresource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": f"system:serviceaccount:{namespace}:{account}", "resourceAttributes": asked},
        }
        done = kubectl("create", "--filename", "-", "--output", "json", given=[review])
        assert done.returncode == 0, done.stderr
        return bool(json.loads(done.stdout)["status"]["allowed"])

    jobs = "pytorchjobs.kubeflow.org"
    needed = [f"{verb} {jobs}" for verb in ("create", "get", "list", "watch", "delete")]
    needed += ["get pods", "list pods", "list events", "get pods/log"]
    assert [words for words in needed if not may(words)] == []
    other = [f"update {jobs}", "create pods", "delete pods", "get secrets", "list configmaps"]
    assert [words for words in other if may(words)] == []
    assert not may(f"create {jobs}", where="default")
    asked = ["get pods", "get workflows.argoproj.io"]  # whether the run of a training has ended
    for account, allowed in (("pipeline-runner", []), ("cosyflow-training", asked)):
        assert [words for words in (*needed, *other) if may(words, account)] == allowed[:1]
        assert [words for words in asked if may(words, account)] == allowed


def test_the_cluster_writes_the_launchers_token(namespace: str) -> None:
    rights = ("ServiceAccount", "Secret")
    objects = [item for item in render(K8S / "overlays/testcluster", namespace) if item["kind"] in rights]
    assert kubectl("apply", "--server-side", "--filename", "-", given=objects).returncode == 0
    options = ("get", "secret", LAUNCHER_SECRET, "--namespace", namespace, "--output", "json")
    limit = time.monotonic() + 30
    while {"token", "ca.crt", "namespace"} != (json.loads(kubectl(*options).stdout).get("data") or {}).keys():
        assert time.monotonic() < limit
        time.sleep(0.5)
