"""The test cluster, and its object store as this machine and as its pods reach it."""

from __future__ import annotations

import os
import sysconfig
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMESPACE = "kubeflow"
TEST_LABEL = "cosyflow.dev/test"
REPOSITORY = Path(__file__).resolve().parents[2]
STORE_HERE = os.environ.get("COSYFLOW_TEST_S3_ENDPOINT", "http://127.0.0.1:30090")
STORE_IN_PODS = "http://minio-service.kubeflow:9000"
SECRET = "mlpipeline-minio-artifact"  # noqa: S105 - a name
BUCKET = "mlpipeline"
IMAGE = os.environ.get("COSYFLOW_TEST_PYTHON_IMAGE", "localhost/kubeflow-lab/python:3.11-kfp2.17.0")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = _why_not()
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.cluster)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def _why_not() -> str:
    """Why the tests on a cluster cannot run; empty when they can."""
    wanted = f"KUBECONFIG must lead to a cluster whose namespace {NAMESPACE} has the label {TEST_LABEL}=true"
    if not os.environ.get("KUBECONFIG"):
        return f"{wanted}; it is not set"
    from kubernetes import client, config
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        core = client.CoreV1Api(config.new_client_from_config(os.environ["KUBECONFIG"]))
        labels = core.read_namespace(NAMESPACE, _request_timeout=5).metadata.labels or {}
    except (ApiException, HTTPError, OSError, config.ConfigException) as error:
        return f"{wanted}; {type(error).__name__}"
    return "" if labels.get(TEST_LABEL) == "true" else wanted


@pytest.fixture(scope="session")
def kubernetes_core() -> Any:
    from kubernetes import client, config

    return client.CoreV1Api(config.new_client_from_config(os.environ["KUBECONFIG"]))


@pytest.fixture
def store(kubernetes_core: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty prefix of the cluster's object store, with the environment that leads there from this machine."""
    from base64 import b64decode
    from urllib.parse import urlsplit

    from minio import Minio

    from cosyflow import storage

    secret = kubernetes_core.read_namespaced_secret(SECRET, NAMESPACE).data
    access, key = (b64decode(secret[name]).decode() for name in ("accesskey", "secretkey"))
    for name in [name for name in os.environ if name.startswith(("AWS_", "COSYFLOW_S3"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", STORE_HERE)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key)
    parts = urlsplit(STORE_HERE)
    buckets = Minio(parts.netloc, access, key, secure=parts.scheme == "https")
    if not buckets.bucket_exists(BUCKET):
        buckets.make_bucket(BUCKET)
    prefix = f"s3://{BUCKET}/cosyflow-test/{uuid.uuid4().hex[:12]}"
    yield prefix
    storage.remove(prefix)


@pytest.fixture(scope="session")
def pod_settings() -> dict[str, Any]:
    """A job's settings for a Python image that sees this checkout and its packages by the node's file system."""
    packages = sysconfig.get_paths()["purelib"]
    return {
        "namespace": NAMESPACE,
        "image": IMAGE,
        "command": ["python3", "-m", "torch.distributed.run"],
        "run_as_user": 65534,
        "s3_endpoint": STORE_IN_PODS,
        "shm_size": "64Mi",
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "3Gi"}},
        "env": [
            {"name": "PYTHONPATH", "value": "/checkout:/packages"},
            {"name": "OMP_NUM_THREADS", "value": "1"},
            {"name": "GLOO_SOCKET_IFNAME", "value": "eth0"},
            {"name": "HOME", "value": "/tmp"},  # noqa: S108 - the only folder that any user may write
        ],
        "volumes": [
            {"name": "packages", "hostPath": {"path": packages}},
            {"name": "checkout", "hostPath": {"path": str(REPOSITORY)}},
        ],
        "volume_mounts": [
            {"name": "packages", "mountPath": "/packages", "readOnly": True},
            {"name": "checkout", "mountPath": "/checkout", "readOnly": True},
        ],
    }
