"""Our MLflow image as k8s/components/mlflow runs it: under `restricted`, artifacts in the object store."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cosyflow import storage
from tests.cluster import postgres
from tests.cluster.conftest import STORE_IN_PODS
from tests.cluster.own_namespace import (
    apply,
    credentials,
    forwarded,
    own_namespace,
    set_images,
    succeed,
    wait_for_deployment,
)
from tests.cluster.test_manifests import K8S, render

pytestmark = pytest.mark.slow


@pytest.fixture
def namespace(store_environment: Any) -> Iterator[str]:
    """With the address and credentials of the cluster's store, which a server needs."""
    addresses = {"AWS_ENDPOINT_URL_S3": STORE_IN_PODS, "AWS_REGION": "us-east-1"}
    with own_namespace() as name:
        endpoints = {"metadata": {"name": "cosyflow", "namespace": name}, "data": addresses}
        secret = credentials(name, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
        apply([{"apiVersion": "v1", "kind": "ConfigMap", **endpoints}, secret])
        yield name


@contextmanager
def server(namespace: str, overlay: str, image: str) -> Iterator[str]:
    """The address, on this machine, of the server that an overlay describes."""
    objects = [item for item in render(K8S / "overlays" / overlay, namespace) if item["metadata"]["name"] == "mlflow"]
    apply(set_images(objects, {"mlflow": image}))
    wait_for_deployment(namespace, "mlflow")
    with forwarded(namespace, "mlflow", 5000) as address:
        yield address


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


def test_on_sqlite(namespace: str, images: dict[str, str]) -> None:
    with server(namespace, "kind", images["mlflow"]) as address:
        check_that_metrics_and_artifacts_are_kept(address, "s3://mlflow")


def test_on_postgres(namespace: str, images: dict[str, str]) -> None:
    postgres.make_image()
    apply(postgres.objects(namespace))
    succeed("--namespace", namespace, "wait", "--for=condition=Ready", "pod/postgres", "--timeout=60s")
    with server(namespace, "gpu", images["mlflow"]) as address:
        run = check_that_metrics_and_artifacts_are_kept(address, "s3://mlpipeline/mlflow")
    assert postgres.query(namespace, f"SELECT key, value FROM metrics WHERE run_uuid = '{run}'") == "loss|2.5"  # noqa: S608
