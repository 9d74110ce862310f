"""LibriTTS-mini from archives in the object store to registered models, each stage by its command line in its image."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import yaml

from cosyflow import storage
from cosyflow.launch.pytorchjob.client import Cluster
from cosyflow.launch.pytorchjob.manifest import JOB_LABEL
from cosyflow.launch.pytorchjob.names import base_name
from cosyflow.standins.models import make_stand_ins
from tests.cluster.conftest import SPEECH
from tests.cluster.stage_jobs import MLFLOW_HERE, Finished, StageJobs, pod_spec

pytestmark = pytest.mark.slow

NAMESPACE = "kubeflow"
SUBSETS = ("train-clean-100", "dev-clean", "test-clean")
RECIPE = "/opt/cosyflow/conf/cosyvoice2.tiny.yaml"
NODES = 2
IMAGES = {
    "download": "base", "prepare": "base", "speaker-embedding": "extract", "speech-token": "extract",
    "parquet": "extract", "merge": "base", "train": "train", "average": "train", "export": "train", "register": "train",
}  # fmt: skip


@dataclass
class Run:
    """All stages in their order, below one prefix of the store."""

    store: str
    model_name: str
    stages: dict[str, list[Finished]]
    seconds: float = 0.0

    def at(self, *parts: str) -> str:
        return storage.join(self.store, *parts)


@pytest.fixture(scope="module")
def run(
    module_store: str, archives: str, stage_jobs: StageJobs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    make_stand_ins(tmp_path_factory.mktemp("pretrained") / "stand-ins")
    run = Run(module_store, f"cosyvoice2-test-{uuid.uuid4().hex[:8]}", {})
    storage.upload_tree(next(tmp_path_factory.getbasetemp().glob("pretrained*")) / "stand-ins", run.at("pretrained"))
    settings = {
        "service_account": "cosyflow-training",
        "shm_size": "64Mi",
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "3Gi"}},
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "GLOO_SOCKET_IFNAME", "value": "eth0"}],
    }
    storage.write_text(run.at("job.yaml"), yaml.safe_dump(settings))
    began = time.monotonic()
    for stage, commands in stage_commands(run, archives):
        run.stages[stage] = run_together(stage_jobs, stage, commands)
    run.seconds = time.monotonic() - began
    yield run
    remove_from_registry(run.model_name)
    remove_jobs("llm", run.at("model"))


def stage_commands(run: Run, archives: str) -> Iterator[tuple[str, list[list[str]]]]:
    """The command lines of each stage; those of one stage, one for each subset, run at the same time."""
    at = run.at
    trees = {subset: at("download", "LibriTTS", subset) for subset in SUBSETS}
    yield "download", [["--part", one, "--data_url", archives, "--output_dir", at("download")] for one in SUBSETS]
    yield "prepare", [["--src_dir", trees[one], "--des_dir", at(one)] for one in SUBSETS]
    for stage, model in (("speaker-embedding", "campplus.onnx"), ("speech-token", "speech_tokenizer_v2.onnx")):
        yield stage, [["--dir", at(one), "--onnx_path", at("pretrained", model)] for one in SUBSETS]
    yield "parquet", [["--src_dir", at(one), "--des_dir", at(one, "parquet"), "--config", RECIPE] for one in SUBSETS]
    lists = ["--train_subsets", "train-clean-100", "--dev_subsets", "dev-clean"]
    yield "merge", [["--src_dir", run.store, "--des_dir", at("lists"), *lists]]
    data = ["--train_data", at("lists", "train.data.list"), "--cv_data", at("lists", "dev.data.list")]
    gang = ["--num_nodes", str(NODES), "--gpus_per_node", "0", "--job", at("job.yaml")]
    tokenizer = ["--qwen_pretrain_path", at("pretrained", "CosyVoice-BlankEN")]
    tracking = ["--experiment", run.model_name]
    yield "train", [["--config", RECIPE, "--model_dir", at("model"), *data, *gang, *tokenizer, *tracking]]
    averaged = at("average", "llm.pt")
    yield "average", [["--src_path", at("model"), "--dst_model", averaged, "--num", "3", "--val_best"]]
    yield "export", [["--config", RECIPE, "--checkpoint", averaged, "--output_dir", at("export")]]
    yield "register", [[f"{run.model_name}={averaged}", "--output_dir", at("register"), "--stand_ins"]]


def run_together(jobs: StageJobs, stage: str, commands: Sequence[list[str]]) -> list[Finished]:
    def run_one(number: int) -> Finished:
        name = f"{stage}-{number}"
        return jobs.run(IMAGES[stage], name, stage, *commands[number], calls_api=stage == "train")

    with ThreadPoolExecutor(len(commands)) as threads:
        return list(threads.map(run_one, range(len(commands))))


def registry() -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=MLFLOW_HERE)


def remove_from_registry(model: str) -> None:
    client = registry()
    client.delete_registered_model(model)
    client.delete_experiment(client.get_experiment_by_name(model).experiment_id)


def remove_jobs(model: str, model_dir: str) -> None:
    cluster = Cluster(NAMESPACE)
    for job in cluster.jobs(f"{JOB_LABEL}={base_name(model, model_dir)}"):
        cluster.delete(job["metadata"]["name"], job["metadata"]["uid"])


def test_every_stage_ends_well(run: Run, figure: Callable[[str], None]) -> None:
    assert list(run.stages) == list(IMAGES)
    for stage, finished in run.stages.items():
        starts = ", ".join(f"{one.start_seconds:.0f}" for one in finished)
        figure(f"{stage} ({IMAGES[stage]}): first line after {starts} s, end after {finished[0].seconds:.0f} s")
    figure(f"LibriTTS-mini, download to register, on the cluster: {run.seconds:.0f} s")


def test_every_utterance_arrives_with_embedding_and_tokens(run: Run) -> None:
    for subset in SUBSETS:
        wanted = sorted(path.stem for path in (SPEECH / subset).rglob("*.wav"))
        scp = storage.read_text(run.at(subset, "wav.scp")).splitlines()
        assert [line.split()[0] for line in scp] == wanted
        for table in ("utt2embedding.pt", "utt2speech_token.pt"):
            with storage.local_copy(run.at(subset, table)) as path:
                assert sorted(torch.load(path, weights_only=True)) == wanted
        lists = storage.read_text(run.at(subset, "parquet", "data.list")).split()
        assert all(storage.exists(shard) for shard in lists)
        assert lists
    train = storage.read_text(run.at("lists", "train.data.list")).split()
    assert train == storage.read_text(run.at("train-clean-100", "parquet", "data.list")).split()


def test_the_gang_trained_and_its_losses_are_in_mlflow(run: Run) -> None:
    result = storage.read_json(run.at("model", "result.json"))
    assert (result["world_size"], result["device"]) == (NODES, "cpu")
    assert result["last_epoch"]["loss"] < result["first_epoch"]["loss"]
    client = registry()
    (tracked,) = client.search_runs([client.get_experiment_by_name(run.model_name).experiment_id])
    assert tracked.info.status == "FINISHED"
    assert len(client.get_metric_history(tracked.info.run_id, "train/loss")) > 1


def test_the_registered_model_lies_in_the_store(run: Run) -> None:
    version = registry().get_model_version_by_alias(run.model_name, "candidate")
    assert version.source == run.at("average", "llm.pt")
    assert version.tags["git_commit"]
    assert storage.exists(version.source)
    assert any(file.path.endswith(".onnx") for file in storage.list_files(run.at("export")))


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
        "spec": pod_spec(images["base"], ["--help"]) | {"serviceAccountName": "default"},
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
