"""Our MLflow image as k8s/components/mlflow runs it: under `restricted`, on sqlite, artifacts in the object store."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from cosyflow import storage
from tests.cluster.test_manifests import K8S, RESTRICTED, kubectl, render

pytestmark = pytest.mark.slow

STORE_IN_PODS = "http://minio-service.kubeflow:9000"
SECRET = "mlpipeline-minio-artifact"  # noqa: S105 - a name


@pytest.fixture(scope="module")
def server(images: dict[str, str], kubernetes_core: Any) -> Iterator[str]:
    """The address, on this machine, of a server in a namespace of its own."""
    namespace = f"cosyflow-test-{uuid.uuid4().hex[:8]}"
    objects = [item for item in render(K8S / "overlays/kind", namespace) if item["metadata"]["name"] == "mlflow"]
    for item in objects:
        if item["kind"] == "Deployment":
            item["spec"]["template"]["spec"]["containers"][0]["image"] = images["mlflow"]
    credentials = kubernetes_core.read_namespaced_secret(SECRET, "kubeflow").data
    place = {"name": SECRET, "namespace": namespace}
    objects.append({"apiVersion": "v1", "kind": "Secret", "metadata": place, "data": dict(credentials)})
    addresses = {"AWS_ENDPOINT_URL_S3": STORE_IN_PODS, "AWS_REGION": "us-east-1"}
    place = {"name": "cosyflow", "namespace": namespace}
    objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": place, "data": addresses})
    succeed("create", "namespace", namespace)
    try:
        succeed("label", "namespace", namespace, RESTRICTED)
        succeed("apply", "--server-side", "--filename", "-", given=objects)
        succeed("--namespace", namespace, "rollout", "status", "deployment/mlflow", "--timeout=180s")
        forward = ["kubectl", "--namespace", namespace, "port-forward", "service/mlflow", ":5000"]
        with subprocess.Popen(forward, stdout=subprocess.PIPE, text=True) as forwarding:
            assert forwarding.stdout is not None
            port = re.search(r"127\.0\.0\.1:(\d+)", forwarding.stdout.readline())
            assert port
            yield f"http://127.0.0.1:{port[1]}"
            forwarding.terminate()
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


def succeed(*arguments: str, given: list[dict[str, Any]] | None = None) -> None:
    done = kubectl(*arguments, given=given)
    assert done.returncode == 0, done.stderr


def test_metrics_and_artifacts_are_kept(server: str, store_environment: Any) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server)
    experiment = client.create_experiment(f"cosyflow-test-{uuid.uuid4().hex[:8]}")
    run = client.create_run(experiment)
    client.log_metric(run.info.run_id, "loss", 2.5)
    client.log_text(run.info.run_id, "said", "what.txt")
    assert client.get_run(run.info.run_id).data.metrics == {"loss": 2.5}
    kept = f"s3://mlflow/{experiment}/{run.info.run_id}/artifacts"
    assert storage.read_text(storage.join(kept, "what.txt")) == "said"
    storage.remove(kept)
