"""A Kubeflow Pipelines server, the pipeline compiled for it, and what its runs read from the cluster's store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosyflow import storage
from cosyflow.standins.models import make_stand_ins
from pipelines.compiling import compile_pipelines
from tests.cluster.conftest import BUCKET, NAMESPACE
from tests.cluster.kfp.server import Server
from tests.cluster.test_manifests import K8S, kubectl

ROOTS_MAP = "kfp-launcher"
"""ConfigMap in which Kubeflow Pipelines has the place of artifacts, where it is not the default one."""
DEFAULT_ROOT = f"minio://{BUCKET}/v2/artifacts"
RUNNER_RULES = K8S / "components/kubeflow-pipelines/pipeline-runner-rules.yaml"
OWN_LABEL_POLICY = K8S / "components/kubeflow-pipelines/own-subset-label.yaml"
RUNNER_ROLES = {"pipeline-runner": RUNNER_RULES, "pipeline-runner-trainer": None}
"""The rules that take the place of those of the account of tasks; None for no rules at all."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("KFP_HOST"):
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="KFP_HOST is not set, the URL of a Kubeflow Pipelines API"))


@pytest.fixture(scope="session")
def tasks_account(deployed: None) -> Iterator[None]:
    """The account of tasks may do what the rules of k8s/ say and nothing else; afterwards what it might before."""
    before = {}
    applied = kubectl("apply", "--filename", str(OWN_LABEL_POLICY))
    assert applied.returncode == 0, applied.stderr
    for role, file in RUNNER_ROLES.items():
        found = kubectl("--namespace", NAMESPACE, "get", "role", role, "--output", "json")
        if found.returncode == 0:
            before[role] = json.loads(found.stdout)["rules"]
            rules = yaml.safe_load(file.read_text(encoding="utf-8"))["rules"] if file else []
            _set_rules(role, rules)
    yield
    for role, rules in before.items():
        _set_rules(role, rules)
    kubectl("delete", "--filename", str(OWN_LABEL_POLICY))


def _set_rules(role: str, rules: list[Any]) -> None:
    patch = json.dumps({"rules": rules})
    done = kubectl("--namespace", NAMESPACE, "patch", "role", role, "--type", "merge", "--patch", patch)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def server(kubernetes_core: Any, tasks_account: None, module_store: str) -> Iterator[Server]:
    """The server; what runs are left in the end are deleted."""
    import kfp
    from kubernetes.client.exceptions import ApiException

    try:
        settings = kubernetes_core.read_namespaced_config_map(ROOTS_MAP, NAMESPACE).data or {}
    except ApiException:
        settings = {}
    root = settings.get("defaultPipelineRoot") or DEFAULT_ROOT
    host = os.environ["KFP_HOST"]
    server = Server(host, NAMESPACE, root, kfp.Client(host=host, namespace=NAMESPACE), kubernetes_core)
    yield server
    for run in list(server.runs):
        server.delete(run)


@pytest.fixture(scope="session")
def image_lock(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    lock = tmp_path_factory.mktemp("images") / "lock.yaml"
    lock.write_text(yaml.safe_dump({"images": {name: images[name] for name in ("base", "extract", "train")}}))
    return lock


@pytest.fixture(scope="session")
def package(image_lock: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = compile_pipelines(tmp_path_factory.mktemp("compiled"), image_lock)
    return path


@pytest.fixture(scope="module")
def pretrained(module_store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pretrained")
    make_stand_ins(folder)
    place = storage.join(module_store, "pretrained")
    storage.upload_tree(folder, place)
    return place
