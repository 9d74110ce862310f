"""LibriTTS-mini from archives in the object store to registered models, each stage by its component in its image."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import yaml

from cosyflow import storage
from cosyflow.launch.client import Cluster
from cosyflow.launch.kinds import KINDS
from cosyflow.launch.spec import JOB_LABEL, RUN_LABEL, base_name
from cosyflow.run.chain import inputs_of
from cosyflow.run.definition import Stage
from cosyflow.run.ends import read_ends
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from cosyflow.stage import MANIFEST, Manifest
from cosyflow.standins.models import make_stand_ins
from tests.cluster.conftest import SPEECH
from tests.cluster.stage_jobs import MLFLOW_HERE, Finished, StageJobs, pod_spec

pytestmark = pytest.mark.slow

NAMESPACE = "kubeflow"
SUBSETS = ("train-clean-100", "dev-clean", "test-clean")
NODES = 2
IMAGES = {
    "download": "base", "prepare": "base", "speaker-embedding": "extract", "speech-token": "extract",
    "parquet": "extract", "merge": "base", "train": "train", "average": "train", "export": "train", "register": "train",
}  # fmt: skip


@dataclass
class Run:
    """All stages in their order, of one run below one prefix of the store."""

    data_root: str
    model_name: str
    stages: dict[str, list[Finished]]
    manifests: dict[tuple[str, str], Manifest]
    seconds: float

    def of(self, stage: str, name: str = "") -> Manifest:
        """What a stage made of a subset; of the model where none is named."""
        found = [manifest for (of, on), manifest in self.manifests.items() if of == stage and name in ("", on)]
        (manifest,) = found
        return manifest

    def read(self, stage: str, file: str, name: str = "") -> list[str]:
        return storage.read_text(storage.join(self.of(stage, name).uri, file)).splitlines()


@pytest.fixture(scope="module")
def run(
    module_store: str, archives: str, stage_jobs: StageJobs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    pretrained, job = storage.join(module_store, "pretrained"), storage.join(module_store, "job.yaml")
    folder = tmp_path_factory.mktemp("pretrained")
    make_stand_ins(folder)
    storage.upload_tree(folder, pretrained)
    pods = {
        "service_account": "cosyflow-training",
        "shm_size": "64Mi",
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "3Gi"}},
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "GLOO_SOCKET_IFNAME", "value": "eth0"}],
    }
    storage.write_text(job, yaml.safe_dump(pods))
    data_root, name = storage.join(module_store, "data"), f"cosyvoice2-test-{uuid.uuid4().hex[:8]}"
    settings = {
        "recipe": "cosyvoice2.tiny",
        "overrides": ["train_conf.max_epoch=3", "train_conf.log_interval=1"],
        "data_root": data_root,
        "data_url": archives,
        "pretrained_dir": pretrained,
        "train_subsets": [SUBSETS[0]],
        "dev_subsets": [SUBSETS[1]],
        "test_subsets": [SUBSETS[2]],
        "num_processes": 1,
        "num_workers": 0,
        "pin_memory": False,
        "average_num": 3,
        "job": job,
        "num_nodes": NODES,
        "gpus_per_node": 0,
        "experiment": name,
        "registered_model": name,
    }
    began = time.monotonic()
    stages = {"plan": [stage_jobs.plan(settings)]}
    _, uri = read_ends(data_root, stage_jobs.run_id)
    record = Record.read(uri)
    for stage in STAGES.values():
        stages[stage.name] = run_together(stage_jobs, stage, record)
    seconds = time.monotonic() - began
    manifests = manifests_of(record, stage_jobs.run_id)
    yield Run(data_root, name, stages, manifests, seconds)
    remove_from_registry(name)
    remove_jobs(record.model_name, next(manifest.uri for manifest in manifests.values() if manifest.stage == "train"))


def manifests_of(record: Record, run: str) -> dict[tuple[str, str], Manifest]:
    """What the stages of a run have left so far."""
    ends, _ = read_ends(record.run.data_root, run)
    return {(end.stage, end.name): manifest for end in ends if (manifest := end.read_manifest()) is not None}


def run_together(jobs: StageJobs, stage: Stage, record: Record) -> list[Finished]:
    """A stage's work on all subsets at the same time, or on the model."""
    done = manifests_of(record, jobs.run_id)

    def run_one(name: str) -> Finished:
        inputs = [done[before.name, other] for before, other in inputs_of(stage, name, record)]
        uris = [storage.join(manifest.uri, MANIFEST) for manifest in inputs]
        return jobs.run_stage(IMAGES[stage.name], stage.name, name, record.uri, uris)

    names = stage.names(record)
    with ThreadPoolExecutor(len(names)) as threads:
        return list(threads.map(run_one, names))


def registry() -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=MLFLOW_HERE)


def remove_from_registry(model: str) -> None:
    client = registry()
    client.delete_registered_model(model)
    client.delete_experiment(client.get_experiment_by_name(model).experiment_id)


def remove_jobs(model: str, model_dir: str) -> None:
    cluster = Cluster(KINDS["pytorchjob"], NAMESPACE)
    for job in cluster.jobs(f"{JOB_LABEL}={base_name(model, model_dir)}"):
        cluster.delete(job["metadata"]["name"], job["metadata"]["uid"])


def test_every_stage_ends_well(run: Run, figure: Callable[[str], None]) -> None:
    assert list(run.stages) == ["plan", *IMAGES]
    assert not any(manifest.reused for manifest in run.manifests.values())
    for stage, finished in run.stages.items():
        starts = ", ".join(f"{one.start_seconds:.0f}" for one in finished)
        image = IMAGES.get(stage, "base")
        figure(f"{stage} ({image}): first line after {starts} s, end after {finished[0].seconds:.0f} s")
    figure(f"LibriTTS-mini, plan to register, on the cluster: {run.seconds:.0f} s")


def test_every_utterance_arrives_with_embedding_and_tokens(run: Run) -> None:
    for subset in SUBSETS:
        wanted = sorted(path.stem for path in (SPEECH / subset).rglob("*.wav"))
        assert [line.split()[0] for line in run.read("prepare", "wav.scp", subset)] == wanted
        for stage, table in (("speaker-embedding", "utt2embedding.pt"), ("speech-token", "utt2speech_token.pt")):
            with storage.local_copy(storage.join(run.of(stage, subset).uri, table)) as path:
                assert sorted(torch.load(path, weights_only=True)) == wanted
        shards = run.read("parquet", "data.list", subset)
        assert all(storage.exists(shard) for shard in shards)
        assert shards
    train, dev, _ = SUBSETS
    for listed, subset in (("train.data.list", train), ("dev.data.list", dev)):
        assert run.read("merge", listed) == run.read("parquet", "data.list", subset)


def test_the_gang_trained_and_its_losses_are_in_mlflow(run: Run, stage_jobs: StageJobs) -> None:
    result = storage.read_json(storage.join(run.of("train").uri, "result.json"))
    assert (result["world_size"], result["device"]) == (NODES, "cpu")
    assert result["last_epoch"]["loss"] < result["first_epoch"]["loss"]
    client = registry()
    (tracked,) = client.search_runs([client.get_experiment_by_name(run.model_name).experiment_id])
    assert tracked.info.status == "FINISHED"
    assert len(client.get_metric_history(tracked.info.run_id, "train/loss")) > 1


def test_the_launchers_token_made_the_job_and_is_not_in_its_pods(run: Run) -> None:
    name = base_name(run.of("train").name, run.of("train").uri)
    (job,) = Cluster(KINDS["pytorchjob"], NAMESPACE).jobs(f"{JOB_LABEL}={name}")
    assert job["metadata"]["managedFields"]
    assert RUN_LABEL in job["metadata"]["labels"]
    assert "cosyflow-launcher" not in json.dumps(job["spec"])


def test_the_registered_model_lies_in_the_store(run: Run) -> None:
    version = registry().get_model_version_by_alias(run.model_name, "candidate")
    assert version.source.startswith(run.of("average").uri)
    assert version.tags["git_commit"]
    assert storage.exists(version.source)
    assert any(name.endswith(".onnx") for name in run.of("export").files)


def test_no_log_and_no_pod_shows_a_credential(run: Run, store_environment: Any, kubernetes_core: Any) -> None:
    import os

    key = os.environ["AWS_SECRET_ACCESS_KEY"]
    logs = [one.log for finished in run.stages.values() for one in finished]
    assert all(logs)
    assert not any(key in log for log in logs)
    pods = kubernetes_core.list_namespaced_pod(NAMESPACE, label_selector="job-name").items
    ours = [pod for pod in pods if pod.metadata.labels["job-name"].startswith("test-")]
    assert ours
    assert not any(key in json.dumps(pod.to_dict(), default=str) for pod in ours)


def test_restricted_pod_security_admits_the_pods(images: dict[str, str]) -> None:
    namespace = f"cosyflow-test-{uuid.uuid4().hex[:8]}"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "stage", "namespace": namespace},
        "spec": pod_spec(images["base"], ["cosyflow", "--help"], launches=True) | {"serviceAccountName": "default"},
    }
    kubectl("create", "namespace", namespace)
    try:
        kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        kubectl("create", "--dry-run=server", "--filename", "-", given=yaml.safe_dump(pod))
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


def kubectl(*arguments: str, given: str | None = None) -> None:
    done = subprocess.run(["kubectl", *arguments], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
