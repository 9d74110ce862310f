"""The test cluster: its object store as this machine and as its pods reach it, our objects in it, and our images."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

NAMESPACE = "kubeflow"
TEST_LABEL = "cosyflow.dev/test"
REPOSITORY = Path(__file__).resolve().parents[2]
STORE_HERE = os.environ.get("COSYFLOW_TEST_S3_ENDPOINT", "http://127.0.0.1:30090")
STORE_IN_PODS = "http://minio-service.kubeflow:9000"
SECRET = "mlpipeline-minio-artifact"  # noqa: S105 - a name
BUCKET = "mlpipeline"
SPEECH = REPOSITORY.parent / "shared" / "speech" / "LibriTTS-mini"
FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = _why_not() if ours else ""
    for item in ours:
        item.add_marker(pytest.mark.cluster)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if figures := config.stash[FIGURES]:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.line(line)


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
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line that stands among the figures at the end of the session."""
    figures: list[str] = request.config.stash[FIGURES]
    return figures.append


@pytest.fixture(scope="session")
def kubernetes_api() -> Any:
    from kubernetes import config

    return config.new_client_from_config(os.environ["KUBECONFIG"])


@pytest.fixture(scope="session")
def kubernetes_core(kubernetes_api: Any) -> Any:
    from kubernetes import client

    return client.CoreV1Api(kubernetes_api)


@pytest.fixture(scope="session")
def deployed(kubernetes_core: Any) -> None:
    """The objects of k8s/overlays/testcluster: accounts, the launcher's role, addresses, the operator's settings.

    The operator reads its settings once, before its first job: it is started again when they change.
    """
    overlay = str(REPOSITORY / "k8s" / "overlays" / "testcluster")
    before = _operator_settings(kubernetes_core)
    subprocess.run(["kubectl", "apply", "--server-side", "--force-conflicts", "-k", overlay], check=True)
    if _operator_settings(kubernetes_core) != before:
        rollout = ["kubectl", "--namespace", NAMESPACE, "rollout"]
        subprocess.run([*rollout, "restart", "deployment/training-operator"], check=True)
        subprocess.run([*rollout, "status", "deployment/training-operator", "--timeout=180s"], check=True)


def _operator_settings(core: Any) -> dict[str, str]:
    maps = core.list_namespaced_config_map(NAMESPACE, field_selector="metadata.name=training-operator-config").items
    return maps[0].data if maps else {}


@pytest.fixture(scope="session")
def images(figure: Callable[[str], None]) -> dict[str, str]:
    """The images of this checkout by name (base, extract, train, mlflow), which the cluster has."""
    from tests.cluster.node_images import provide

    return provide(figure)


@pytest.fixture(scope="module")
def store_environment(kubernetes_core: Any) -> Iterator[Any]:
    """The environment that leads to the cluster's object store from this machine; gives a client for its buckets."""
    from minio import Minio

    secret = kubernetes_core.read_namespaced_secret(SECRET, NAMESPACE).data
    access, key = (b64decode(secret[name]).decode() for name in ("accesskey", "secretkey"))
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith(("AWS_", "COSYFLOW_S3"))]:
            environment.delenv(name)
        environment.setenv("AWS_ENDPOINT_URL_S3", STORE_HERE)
        environment.setenv("AWS_ACCESS_KEY_ID", access)
        environment.setenv("AWS_SECRET_ACCESS_KEY", key)
        parts = urlsplit(STORE_HERE)
        buckets = Minio(parts.netloc, access, key, secure=parts.scheme == "https")
        if not buckets.bucket_exists(BUCKET):
            buckets.make_bucket(BUCKET)
        yield buckets


@pytest.fixture
def store(store_environment: Any) -> Iterator[str]:
    """An empty prefix of the cluster's object store, with the environment that leads there from this machine."""
    yield from _prefix()


@pytest.fixture(scope="module")
def module_store(store_environment: Any) -> Iterator[str]:
    """As `store`, for all tests of a module."""
    yield from _prefix()


def _prefix() -> Iterator[str]:
    from cosyflow import storage

    prefix = f"s3://{BUCKET}/cosyflow-test/{uuid.uuid4().hex[:12]}"
    yield prefix
    storage.remove(prefix)


@pytest.fixture(scope="module")
def archives(store_environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address, for pods, of a bucket with SUBSET.tar.gz and md5sum.txt that anybody may read, as OpenSLR has them."""
    from cosyflow import storage
    from cosyflow.standins.corpus import pack_corpus

    if not SPEECH.is_dir():
        pytest.skip(f"no recorded speech at {SPEECH}")
    folder = tmp_path_factory.mktemp("archives")
    pack_corpus(SPEECH, folder)
    bucket = f"openslr-{uuid.uuid4().hex[:8]}"
    reading = {
        "Effect": "Allow",
        "Principal": {"AWS": ["*"]},
        "Action": ["s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{bucket}/*"],
    }
    store_environment.make_bucket(bucket)
    store_environment.set_bucket_policy(bucket, json.dumps({"Version": "2012-10-17", "Statement": [reading]}))
    storage.upload_tree(folder, f"s3://{bucket}/60")
    yield f"{STORE_IN_PODS}/{bucket}/60"
    for entry in store_environment.list_objects(bucket, recursive=True):
        store_environment.remove_object(bucket, entry.object_name)
    store_environment.remove_bucket(bucket)


@pytest.fixture(scope="module")
def stage_jobs(kubernetes_api: Any, images: dict[str, str], deployed: None) -> Iterator[Any]:
    """Makes Jobs that run commands of `cosyflow`; see tests.cluster.stage_jobs."""
    from tests.cluster.stage_jobs import StageJobs

    jobs = StageJobs(kubernetes_api, NAMESPACE, images, f"test-{uuid.uuid4().hex[:8]}")
    yield jobs
    jobs.remove()


@pytest.fixture(scope="session")
def pod_settings(images: dict[str, str], deployed: None) -> dict[str, Any]:
    """Settings of a training job that is launched from this machine."""
    return {
        "namespace": NAMESPACE,
        "image": images["train"],
        "service_account": "cosyflow-training",
        "s3_endpoint": STORE_IN_PODS,
        "shm_size": "64Mi",
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "3Gi"}},
        "env": [
            {"name": "OMP_NUM_THREADS", "value": "1"},
            {"name": "GLOO_SOCKET_IFNAME", "value": "eth0"},
        ],
    }


@pytest.fixture
def settings_file(pod_settings: dict[str, Any], tmp_path: Path) -> str:
    import yaml

    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(pod_settings))
    return str(path)


@pytest.fixture
def arguments(store: str, tmp_path: Path) -> Iterator[Any]:
    """A training whose data and model lie in the store; its jobs are removed afterwards."""
    yield from _training(store, tmp_path)


@pytest.fixture
def other_arguments(store: str, tmp_path: Path) -> Iterator[Any]:
    """Another one, of equal data and into a folder of its own."""
    yield from _training(f"{store}/other", tmp_path / "other")


def _training(store: str, folder: Path) -> Iterator[Any]:
    from cosyflow.launch.client import Cluster
    from cosyflow.launch.kinds import KINDS
    from cosyflow.launch.spec import JOB_LABEL
    from tests.cluster.small_training import job_name, make_arguments

    training = make_arguments(store, folder)
    yield training
    cluster = Cluster(KINDS["pytorchjob"], NAMESPACE)
    for job in cluster.jobs(f"{JOB_LABEL}={job_name(training)}"):
        cluster.delete(job["metadata"]["name"], job["metadata"]["uid"])


@pytest.fixture
def gpus(kubernetes_core: Any) -> Iterator[str]:
    """The node says that it has two GPUs, for the scheduler to share out; gives the name of their resource."""
    from tests.cluster.small_training import wait_for

    resource = "nvidia.com/gpu"
    (node,) = kubernetes_core.list_node().items
    name = node.metadata.name
    if resource in node.status.capacity:
        pytest.skip(f"{name} has GPUs of its own")

    def allocatable() -> str:
        return str(kubernetes_core.read_node(name).status.allocatable.get(resource, "0"))

    kubernetes_core.patch_node_status(name, {"status": {"capacity": {resource: "2"}}})
    try:
        wait_for("the kubelet's word for the GPUs", lambda: allocatable() == "2", 60)
        yield resource
    finally:
        nothing = {resource: None}
        kubernetes_core.patch_node_status(name, {"status": {"capacity": nothing, "allocatable": nothing}})
