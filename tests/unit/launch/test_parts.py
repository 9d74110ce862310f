"""The launcher's parts: settings, its own pod, its heartbeat, and the error in a log."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cosyflow import storage
from cosyflow.config.options import LaunchOptions
from cosyflow.errors import CosyFlowError
from cosyflow.launch.follow.follower import find_cause
from cosyflow.launch.follow.heart import beating
from cosyflow.launch.follow.state import failures
from cosyflow.launch.kinds.pytorchjob import PyTorchJob
from cosyflow.launch.settings import JobSettings, read_settings
from cosyflow.launch.surroundings import Surroundings, read_pod
from cosyflow.launch.train_stage import launch
from cosyflow.training.arguments import Arguments
from cosyflow.training.parent import Parent
from tests.unit.launch.kinds.test_pytorchjob import spec

WORKFLOW = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "cosyvoice-x7k2p", "uid": "0123-4567"}


def test_settings_are_read(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("image: registry/train:1\nmax_restarts: 5\ntolerations: [{key: gpu, operator: Exists}]\n")
    settings = read_settings(str(path))
    assert (settings.image, settings.max_restarts) == ("registry/train:1", 5)
    assert settings.tolerations == [{"key": "gpu", "operator": "Exists"}]
    assert read_settings("") == JobSettings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imgae: x", "imgae: Unexpected keyword argument"),
        ("max_restarts: many", "max_restarts: Input should be a valid integer"),
        ("a: [", "not YAML"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(CosyFlowError, match=f"job.yaml: {message}"):
        read_settings(str(path))


def test_the_launchers_pod_tells_run_image_and_owner() -> None:
    pod = {
        "metadata": {
            "name": "cosyvoice-x7k2p-system-container-impl-123",
            "namespace": "kubeflow",
            "uid": "of-the-pod",
            "labels": {"pipeline/runid": "1f6e3c2a", "workflows.argoproj.io/workflow": "cosyvoice-x7k2p"},
            "ownerReferences": [{**WORKFLOW, "controller": True, "blockOwnerDeletion": True}],
        },
        "spec": {"containers": [{"name": "wait", "image": "argoexec:4"}, {"name": "main", "image": "train@sha256:0"}]},
    }
    found = read_pod(pod)
    workflow = "/apis/argoproj.io/v1alpha1/namespaces/kubeflow/workflows/cosyvoice-x7k2p"
    parent = Parent(workflow, "0123-4567")
    assert found == Surroundings("1f6e3c2a", "train@sha256:0", tuple(WORKFLOW.items()), parent)
    assert PyTorchJob().manifest(replace(spec(), owner=found.owner))["metadata"]["ownerReferences"] == [WORKFLOW]


def test_outside_of_a_workflow_the_launchers_pod_is_what_the_training_ends_with() -> None:
    metadata = {"name": "shell", "namespace": "team-a", "uid": "of-the-pod"}
    pod = {"metadata": metadata, "spec": {"containers": [{"name": "shell", "image": "train:1"}]}}
    parent = Parent("/api/v1/namespaces/team-a/pods/shell", "of-the-pod")
    assert read_pod(pod) == Surroundings("", "train:1", (), parent)


def test_the_heartbeat_is_renewed_until_the_end(folder: str) -> None:
    heartbeat = storage.join(folder, "heartbeat")
    with beating(heartbeat, pytest.fail, interval_seconds=0.05):
        for wanted in range(3):
            limit = time.monotonic() + 10
            while storage.read_json(heartbeat)["beat"] < wanted:
                assert time.monotonic() < limit
                time.sleep(0.02)
    last = storage.read_json(heartbeat)["beat"]
    time.sleep(0.2)
    assert storage.read_json(heartbeat)["beat"] == last


def test_an_outage_of_the_store_is_told_once_and_survived(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    told: list[str] = []
    back = threading.Event()

    def tell(message: str) -> None:
        told.append(message)
        if message == "renews the heartbeat again":
            back.set()

    with beating(str(folder / "heartbeat"), tell, interval_seconds=0.05):
        folder.rename(tmp_path / "moved")
        folder.write_text("a file where the folder was")
        time.sleep(0.5)
        folder.unlink()
        assert back.wait(10)
    assert len(told) == 2
    assert told[0].startswith("cannot renew the heartbeat: ")


def test_the_cause_is_the_users_error_or_the_last_exception() -> None:
    torchrun = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: cosyflow.training FAILED"
    assert find_cause(["KeyError: 'x'", "error: x.yaml:3: unknown key", torchrun]) == "x.yaml:3: unknown key"
    assert find_cause(["ValueError: first", "[rank1]: RuntimeError: second", torchrun]) == "RuntimeError: second"
    assert find_cause(["[train llm] update 1"]) == ""


def test_an_evicted_pod_is_a_failed_one() -> None:
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    (failure,) = failures([{"metadata": {"name": "x-worker-0"}, "status": status}], "pytorch")
    assert str(failure) == "x-worker-0: Evicted: The node was low on resource: memory."


def test_an_unknown_launcher_is_refused(tmp_path: Path) -> None:
    nothing = Arguments(config="", train_data="", cv_data="", model_dir=str(tmp_path))
    with pytest.raises(CosyFlowError, match="launcher: slurm is not one of auto, local, pytorchjob"):
        launch(nothing, LaunchOptions(launcher="slurm"))
