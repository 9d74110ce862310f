"""`python -m pipelines run` on this machine with a KUBECONFIG: the data in the store, the training in the cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosyflow import storage
from cosyflow.stage import MANIFEST, Manifest
from cosyflow.standins.models import make_stand_ins
from tests.cluster.conftest import REPOSITORY, STORE_HERE, STORE_IN_PODS
from tests.cluster.stage_jobs import MLFLOW_HERE

pytestmark = pytest.mark.slow

MLFLOW_IN_PODS = {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"}


def test_stages_run_here_and_their_training_in_two_pods(
    store: str, archives: str, pod_settings: dict[str, Any], tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    make_stand_ins(tmp_path / "pretrained")
    storage.upload_tree(tmp_path / "pretrained", storage.join(store, "pretrained"))
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump({**pod_settings, "env": [*pod_settings["env"], MLFLOW_IN_PODS]}))
    name = f"cosyvoice2-test-{uuid.uuid4().hex[:8]}"
    asked = [
        *(
            "--recipe",
            "cosyvoice2.tiny",
            "--overrides",
            "train_conf.max_epoch=1",
            "--num-workers",
            "0",
            "--average-num",
            "1",
        ),
        *("--data-root", storage.join(store, "data"), "--data-url", archives.replace(STORE_IN_PODS, STORE_HERE)),
        *("--train-subsets", "train-clean-100", "--dev-subsets", "dev-clean", "--test-subsets", "none"),
        *("--pretrained-dir", storage.join(store, "pretrained"), "--mlflow-uri", "", "--registered-model", name),
        *("--launcher", "pytorchjob", "--job", str(job), "--num-nodes", "2", "--gpus-per-node", "0"),
    ]
    command = [sys.executable, "-m", "pipelines", "run", "--run-dir", str(tmp_path / "run"), *asked]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": MLFLOW_HERE, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    (uri,) = [stage["uri"] for stage in summary["stages"] if stage["stage"] == "train"]
    trained = Manifest.read(storage.join(uri, MANIFEST))
    job_of_run = yaml.safe_load(storage.read_text(storage.join(trained.uri, "job.yaml")))
    replicas = job_of_run["spec"]["pytorchReplicaSpecs"]
    assert {kind: replica["replicas"] for kind, replica in replicas.items()} == {"Master": 1, "Worker": 1}
    assert trained.details["device"] == "2 x cpu"
    assert trained.counts["epochs"] == 1
    assert trained.counts["updates"] > 0
    client = MlflowClient(tracking_uri=MLFLOW_HERE)
    assert int(client.get_model_version_by_alias(name, "candidate").version) == 1
