"""Our MLflow image as k8s/components/mlflow runs it: under `restricted`, artifacts in the object store."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cosyflow import storage
from tests.cluster import postgres
from tests.cluster.conftest import SECRET, STORE_IN_PODS
from tests.cluster.test_manifests import K8S, RESTRICTED, kubectl, render

pytestmark = pytest.mark.slow


@pytest.fixture
def namespace(kubernetes_core: Any) -> Iterator[str]:
    """A namespace that enforces `restricted`, with the addresses and credentials that a server needs."""
    name = f"cosyflow-test-{uuid.uuid4().hex[:8]}"
    credentials = kubernetes_core.read_namespaced_secret(SECRET, "kubeflow").data
    addresses = {"AWS_ENDPOINT_URL_S3": STORE_IN_PODS, "AWS_REGION": "us-east-1"}
    needed = [
        {"kind": "Secret", "metadata": {"name": SECRET, "namespace": name}, "data": dict(credentials)},
        {"kind": "ConfigMap", "metadata": {"name": "cosyflow", "namespace": name}, "data": addresses},
    ]
    succeed("create", "namespace", name)
    try:
        succeed("label", "namespace", name, RESTRICTED)
        succeed("apply", "--server-side", "--filename", "-", given=[{"apiVersion": "v1", **item} for item in needed])
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


def succeed(*arguments: str, given: list[dict[str, Any]] | None = None) -> None:
    done = kubectl(*arguments, given=given)
    assert done.returncode == 0, done.stderr


@contextmanager
def server(namespace: str, overlay: str, image: str) -> Iterator[str]:
    """The address, on this machine, of the server that an overlay describes."""
    objects = [item for item in render(K8S / "overlays" / overlay, namespace) if item["metadata"]["name"] == "mlflow"]
    for item in objects:
        if item["kind"] == "Deployment":
            item["spec"]["template"]["spec"]["containers"][0]["image"] = image
    succeed("apply", "--server-side", "--filename", "-", given=objects)
    succeed("--namespace", namespace, "rollout", "status", "deployment/mlflow", "--timeout=180s")
    forward = ["kubectl", "--namespace", namespace, "port-forward", "service/mlflow", ":5000"]
    with subprocess.Popen(forward, stdout=subprocess.PIPE, text=True) as forwarding:
        assert forwarding.stdout is not None
        port = re.search(r"127\.0\.0\.1:(\d+)", forwarding.stdout.readline())
        assert port
        yield f"http://127.0.0.1:{port[1]}"
        forwarding.terminate()


def check_that_metrics_and_artifacts_are_kept(address: str, files: str) -> str:
    """Returns the run that was made, whose artifacts are below `files`."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=address)
    experiment = client.create_experiment(f"cosyflow-test-{uuid.uuid4().hex[:8]}")
    run: str = client.create_run(experiment).info.run_id
    client.log_metric(run, "loss", 2.5)
    client.log_text(run, "said", "what.txt")
    assert client.get_run(run).data.metrics == {"loss": 2.5}
    kept = storage.join(files, experiment, run, "artifacts")
    assert storage.read_text(storage.join(kept, "what.txt")) == "said"
    storage.remove(kept)
    return run


def test_on_sqlite(namespace: str, images: dict[str, str], store_environment: Any) -> None:
    with server(namespace, "kind", images["mlflow"]) as address:
        check_that_metrics_and_artifacts_are_kept(address, "s3://mlflow")


def test_on_postgres(namespace: str, images: dict[str, str], store_environment: Any) -> None:
    postgres.make_image()
    succeed("apply", "--server-side", "--filename", "-", given=postgres.objects(namespace))
    succeed("--namespace", namespace, "wait", "--for=condition=Ready", "pod/postgres", "--timeout=60s")
    with server(namespace, "gpu", images["mlflow"]) as address:
        run = check_that_metrics_and_artifacts_are_kept(address, "s3://mlpipeline/mlflow")
    assert postgres.query(namespace, f"SELECT key, value FROM metrics WHERE run_uuid = '{run}'") == "loss|2.5"  # noqa: S608
