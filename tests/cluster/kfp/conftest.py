"""A Kubeflow Pipelines server, the pipeline compiled for it, and what its runs read from the cluster's store."""

from __future__ import annotations

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

ROOTS_MAP = "kfp-launcher"
"""ConfigMap in which Kubeflow Pipelines has the place of artifacts, where it is not the default one."""
DEFAULT_ROOT = f"minio://{BUCKET}/v2/artifacts"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("KFP_HOST"):
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="KFP_HOST is not set, the URL of a Kubeflow Pipelines API"))


@pytest.fixture(scope="module")
def server(kubernetes_core: Any, deployed: None, module_store: str) -> Iterator[Server]:
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


@pytest.fixture(scope="session")
def cached_package(image_lock: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline whose stages the server's own cache may answer."""
    (path,) = compile_pipelines(tmp_path_factory.mktemp("cached"), image_lock, kfp_cache=True)
    return path


@pytest.fixture(scope="module")
def pretrained(module_store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pretrained")
    make_stand_ins(folder)
    place = storage.join(module_store, "pretrained")
    storage.upload_tree(folder, place)
    return place
