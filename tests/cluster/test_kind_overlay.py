"""The overlay `kind` as it stands, in a namespace of its own: store, buckets, MLflow and accounts, and a stage in it.

Its MinIO is the build that the cluster has, as a user takes the one that they have.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from cosyflow import storage
from tests.cluster.conftest import SPEECH
from tests.cluster.own_namespace import (
    apply,
    credentials,
    forwarded,
    own_namespace,
    set_images,
    succeed,
    wait_for_deployment,
)
from tests.cluster.stage_jobs import StageJobs
from tests.cluster.test_manifests import K8S, kubectl, render
from tests.cluster.test_mlflow_server import check_that_metrics_and_artifacts_are_kept

pytestmark = pytest.mark.slow
ACCESS, KEY = "minio", uuid.uuid4().hex


@pytest.fixture(scope="module")
def minio_image() -> str:
    first = "jsonpath={.spec.template.spec.containers[0].image}"
    image = kubectl("--namespace", "kubeflow", "get", "deployment", "minio", "--output", first).stdout
    if not image:
        pytest.skip("the cluster has no deployment kubeflow/minio, whose image could be taken")
    return image


@pytest.fixture(scope="module")
def namespace(images: dict[str, str], minio_image: str) -> Iterator[str]:
    """All of the overlay but the settings of its namespace, which enforce less than this test's own."""
    with own_namespace() as name:
        objects = [item for item in render(K8S / "overlays/kind", name) if item["kind"] != "Namespace"]
        workloads = {"minio": minio_image, "make-buckets": images["base"], "mlflow": images["mlflow"]}
        apply([credentials(name, ACCESS, KEY), *set_images(objects, workloads)])
        wait_for_deployment(name, "minio")
        wait_for_deployment(name, "mlflow")
        succeed("--namespace", name, "wait", "--for=condition=complete", "job/make-buckets", "--timeout=120s")
        yield name


@pytest.fixture
def own_store(namespace: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The environment leads to this overlay's store."""
    with forwarded(namespace, "minio-service", 9000) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
        yield


def test_mlflow_keeps_its_artifacts_in_the_store(namespace: str, own_store: None) -> None:
    with forwarded(namespace, "mlflow", 5000) as address:
        check_that_metrics_and_artifacts_are_kept(address, "s3://mlflow")


def test_a_stage_works_there(namespace: str, own_store: None, kubernetes_api: Any, images: dict[str, str]) -> None:
    if not SPEECH.is_dir():
        pytest.skip(f"no recorded speech at {SPEECH}")
    storage.upload_tree(SPEECH / "dev-clean", "s3://mlpipeline/dev-clean")
    jobs = StageJobs(kubernetes_api, namespace, images, "test")
    made = "s3://mlpipeline/prepared"
    jobs.run("base", "prepare", "prepare", "--src_dir", "s3://mlpipeline/dev-clean", "--des_dir", made)
    listed = storage.read_text(f"{made}/wav.scp").splitlines()
    assert len(listed) == len(list((SPEECH / "dev-clean").rglob("*.wav")))


def test_the_store_keeps_its_files_when_its_pod_is_replaced(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    with forwarded(namespace, "minio-service", 9000) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        storage.write_text("s3://mlpipeline/kept", "what was written")
    succeed("--namespace", namespace, "rollout", "restart", "deployment/minio")
    wait_for_deployment(namespace, "minio")
    with forwarded(namespace, "minio-service", 9000) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
        assert storage.read_text("s3://mlpipeline/kept") == "what was written"
