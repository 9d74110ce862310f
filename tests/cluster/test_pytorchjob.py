"""The launcher on a real cluster: a gang of two pods trains from and into the object store, whatever happens to it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.launch.client import Cluster
from cosyflow.launch.follow.state import running
from cosyflow.launch.job import train_in_cluster
from cosyflow.launch.kinds import KINDS
from cosyflow.launch.settings import JobSettings
from cosyflow.launch.surroundings import Surroundings
from cosyflow.launch.train_stage import launch
from cosyflow.training.arguments import Arguments
from cosyflow.training.parent import Parent
from tests.cluster.small_training import (
    IDLE_LOAD,
    LONG,
    NODES,
    SMALL_MODEL,
    STOP_BUSY_SECONDS,
    STOP_SECONDS,
    UPDATES,
    gang,
    has_checkpoint,
    in_the_background,
    job_name,
    make_arguments,
    timeline,
    wait_for,
)
from tests.cluster.test_manifests import kubectl

NAMESPACE = "kubeflow"
KIND = KINDS["pytorchjob"]


@pytest.mark.slow
def test_a_gang_trains_to_its_end(arguments: Arguments, settings_file: str) -> None:
    start = time.monotonic()
    result = launch(arguments, gang(settings_file))
    print(f"a gang of {NODES}: {UPDATES} updates in {time.monotonic() - start:.0f} s, all told")
    assert result.counts["updates"] == UPDATES
    assert result.details["device"] == f"{NODES} x cpu"
    assert {"job.yaml", "timeline.jsonl"} <= set(result.files)
    events = [entry["event"] for entry in timeline(arguments)]
    assert (events[0], events[-1]) == ("created", "succeeded")
    log = storage.read_text(storage.join(arguments.model_dir, "train.log"))
    assert f"{NODES} x cpu" in log


@pytest.mark.slow
def test_a_gang_trains_by_deepspeed(arguments: Arguments, other_arguments: Arguments, settings_file: str) -> None:
    """Under a read-only root, with the operator that the image has: compiling one would take longer than this."""
    by_deepspeed = replace(arguments, train_engine="deepspeed")
    result = launch(by_deepspeed, gang(settings_file))
    assert result.counts["updates"] == UPDATES
    assert {"deepspeed.json", "job.yaml"} <= {file.path for file in storage.list_files(arguments.model_dir)}
    log = storage.read_text(storage.join(arguments.model_dir, "train.log"))
    assert f"{NODES} x cpu" in log
    assert "ninja" not in log

    launch(other_arguments, gang(settings_file))
    ours, theirs = (_last_weights(each.model_dir) for each in (by_deepspeed, other_arguments))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-4


def _last_weights(model_dir: str) -> dict[str, Any]:
    import torch

    tag = storage.read_json(storage.join(model_dir, "result.json"))["checkpoint"]
    with storage.local_copy(storage.join(model_dir, f"{tag}.pt")) as path:
        weights: dict[str, Any] = torch.load(path, weights_only=True)
    return weights


@pytest.mark.slow
def test_a_deleted_worker_is_a_new_start_from_the_last_checkpoint(
    arguments: Arguments, settings_file: str, kubernetes_core: Any
) -> None:
    def delete_worker() -> None:
        wait_for("the first checkpoint", lambda: has_checkpoint(arguments), 240)
        kubernetes_core.delete_namespaced_pod(f"{job_name(arguments)}-worker-0", NAMESPACE, grace_period_seconds=0)

    many = replace(arguments, max_steps=LONG)
    saboteur = in_the_background(delete_worker)
    result = launch(many, gang(settings_file))
    saboteur.join()
    assert result.counts["updates"] == LONG
    assert [entry["event"] for entry in timeline(arguments)].count("restart") == 1
    assert "goes on from epoch_" in storage.read_text(storage.join(arguments.model_dir, "train.log"))


def killed_launcher(arguments: Arguments, settings_file: str) -> None:
    """A launcher in a process of its own, killed without a word when there is a checkpoint."""
    options = ["--launcher", "pytorchjob", "--num_nodes", str(NODES), "--gpus_per_node", "0", "--job", settings_file]
    command = [sys.executable, "-m", "cosyflow", "train", *arguments.command_line(), *options]
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for("the first checkpoint", lambda: launcher.poll() is not None or has_checkpoint(arguments), 240)
        assert launcher.poll() is None, "it ended by itself"
    finally:
        launcher.kill()
        launcher.wait()


@pytest.mark.slow
def test_the_next_launcher_goes_on_with_the_job_of_a_killed_one(arguments: Arguments, settings_file: str) -> None:
    many = replace(arguments, max_steps=LONG)
    killed_launcher(many, settings_file)
    result = launch(many, gang(settings_file))
    assert result.counts["updates"] == LONG
    assert [entry["event"] for entry in timeline(arguments) if entry["event"] in ("created", "adopted")] == [
        "created",
        "adopted",
    ]


def endless(arguments: Arguments, store: str, folder: Path) -> Arguments:
    """A training that goes on until it is stopped.

    The store keeps what is deleted for five minutes: many checkpoints a second would be gigabytes there.
    """
    make_arguments(store, folder / "long_epochs", num_train=600)
    seldom = ("train_conf.max_epoch=100000", "train_conf.save_per_step=200")
    return replace(arguments, max_steps=100_000, overrides=(*SMALL_MODEL, *seldom))


@pytest.mark.slow
@pytest.mark.long
def test_a_job_that_nobody_follows_ends_within_two_minutes(
    arguments: Arguments, pod_settings: dict[str, Any], store: str, tmp_path: Path
) -> None:
    # the worker may end first, and the operator would then delete the master with its last lines
    kept = tmp_path / "kept.yaml"
    kept.write_text(yaml.safe_dump({**pod_settings, "clean_pod_policy": "None"}))
    killed_launcher(endless(arguments, store, tmp_path), str(kept))
    start = time.monotonic()
    cluster = Cluster(KIND, NAMESPACE)
    job = job_name(arguments)
    wait_for("the end of all pods", lambda: not running(cluster.pods(job)), 120)
    print(f"without a launcher the pods ended after {time.monotonic() - start:.0f} s")
    last = "\n".join(cluster.tail(f"{job}-master-0", 200))
    assert "nobody follows this run any more" in last
    assert "exitcode  : 75" in last
    assert storage.exists(storage.join(arguments.model_dir, "heartbeat"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image": "localhost/nowhere/train:1"}, "cannot get the image localhost/nowhere/train:1"),
        ({"node_selector": {"no": "such-node"}, "pending_seconds": 3}, "has no node: Unschedulable: 0/1 nodes"),
        ({"s3_secret": "no-such-secret", "pull_seconds": 3}, 'secret "no-such-secret" not found'),
    ],
    ids=["image", "node", "secret"],
)
def test_what_cannot_start_fails_within_a_minute(
    arguments: Arguments, pod_settings: dict[str, Any], tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    start = time.monotonic()
    settings = JobSettings(**{**pod_settings, **changed})
    with pytest.raises(CosyFlowError, match=message):
        train_in_cluster(KIND, arguments, settings, NODES, 0, tmp_path / "train.log")
    assert time.monotonic() - start < 60
    assert Cluster(KIND, NAMESPACE).get(job_name(arguments)) is None


@pytest.mark.slow
def test_a_job_of_another_run_is_refused(arguments: Arguments, pod_settings: dict[str, Any], tmp_path: Path) -> None:
    waiting = JobSettings(**{**pod_settings, "node_selector": {"no": "such-node"}, "pending_seconds": 15})
    log = tmp_path / "train.log"
    refused = "belongs to another run"

    def other_run() -> None:
        with pytest.raises(CosyFlowError, match="has no node"):
            train_in_cluster(KIND, arguments, waiting, 1, 0, log)

    other = in_the_background(other_run)
    wait_for("the other run's job", lambda: Cluster(KIND, NAMESPACE).get(job_name(arguments)) is not None)
    with pytest.raises(CosyFlowError, match=refused):
        train_in_cluster(KIND, replace(arguments, max_steps=UPDATES + 1), waiting, 1, 0, log)
    other.join(60)


@pytest.mark.slow
def test_a_certain_failure_fails_once_and_its_retry_makes_no_job(arguments: Arguments, settings_file: str) -> None:
    listed = storage.read_text(arguments.train_data)
    storage.write_text(arguments.train_data, listed + storage.join(arguments.model_dir, "no-such-shard.tar") + "\n")
    with pytest.raises(CosyFlowError, match=r"no-such-shard\.tar"):
        launch(arguments, gang(settings_file))
    start = time.monotonic()
    with pytest.raises(CosyFlowError, match=r"the same would fail again: .*no-such-shard\.tar.* on purpose remove"):
        launch(arguments, gang(settings_file))
    print(f"the retry of a certain failure ended after {time.monotonic() - start:.0f} s")
    assert time.monotonic() - start < 15
    assert [entry["event"] for entry in timeline(arguments) if entry["event"] in ("created", "restart")] == ["created"]

    storage.write_text(arguments.train_data, listed)
    assert launch(arguments, gang(settings_file)).counts["updates"] == UPDATES


@pytest.fixture
def workflow() -> Iterator[Parent]:
    """A Workflow that does nothing until it is ended, as the one that a training is a step of."""
    if kubectl("get", "crd", "workflows.argoproj.io").returncode != 0:
        pytest.skip("Argo Workflows is not deployed")
    waiting = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": "cosyflow-test-", "namespace": NAMESPACE},
        "spec": {"entrypoint": "wait", "templates": [{"name": "wait", "suspend": {}}]},
    }
    made = json.loads(kubectl("create", "--output", "json", "--filename", "-", given=[waiting]).stdout)["metadata"]
    yield Parent(f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/workflows/{made['name']}", made["uid"])
    kubectl("--namespace", NAMESPACE, "delete", "workflow", made["name"])


@pytest.mark.slow
def test_a_training_ends_within_30_s_of_the_stop_of_its_workflow(
    arguments: Arguments,
    pod_settings: dict[str, Any],
    workflow: Parent,
    store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is stopped as Kubeflow Pipelines does it, and its heartbeat goes on: only the API server can have told it."""
    monkeypatch.setattr("cosyflow.launch.job.look_around", lambda cluster: Surroundings(run="stopped", parent=workflow))
    settings = JobSettings(**{**pod_settings, "max_restarts": 0, "clean_pod_policy": "None"})
    long = endless(arguments, store, tmp_path)

    def train() -> None:
        with pytest.raises(CosyFlowError, match="exit status"):
            train_in_cluster(KIND, long, settings, NODES, 0, tmp_path / "train.log")

    training = in_the_background(train)
    wait_for("the first checkpoint", lambda: has_checkpoint(arguments), 240)
    load = os.getloadavg()[0]
    stop = json.dumps({"spec": {"activeDeadlineSeconds": 0}})
    kubectl("--namespace", NAMESPACE, "patch", workflow.name, "--type", "merge", "--patch", stop)
    start = time.monotonic()
    cluster, name = Cluster(KIND, NAMESPACE), job_name(arguments)
    wait_for("the end of all pods", lambda: not running(cluster.pods(name)), 120)
    seconds = time.monotonic() - start
    print(f"after the stop of their Workflow the pods ended within {seconds:.0f} s (load of the machine: {load:.1f})")
    assert seconds < (STOP_SECONDS if load < IDLE_LOAD else STOP_BUSY_SECONDS)
    last = "\n".join(cluster.tail(f"{name}-master-0", 200))
    assert f"{workflow.name} was terminated" in last
    training.join(60)
    updates = int(re.findall(r"stopped after update (\d+)", last)[0])
    newest = max(
        int(yaml.safe_load(storage.read_text(storage.join(arguments.model_dir, file.path)))["step"])
        for file in storage.list_files(arguments.model_dir)
        if re.fullmatch(r"epoch_\w+\.yaml", file.path)
    )
    assert newest == updates


@pytest.mark.slow
def test_gpus_are_shared_out_by_the_scheduler_and_who_finds_none_waits(
    arguments: Arguments, other_arguments: Arguments, pod_settings: dict[str, Any], gpus: str, tmp_path: Path
) -> None:
    """The node has no real ones: the processes find none, and train on the CPU."""
    settings = JobSettings(**pod_settings)
    first = in_the_background(lambda: train_in_cluster(KIND, arguments, settings, 2, 1, tmp_path / "first.log"))
    cluster = Cluster(KIND, NAMESPACE)

    def placed() -> int:
        return sum("nodeName" in pod["spec"] for pod in cluster.pods(job_name(arguments)))

    wait_for("a place for the first job's pods", lambda: placed() == 2)
    train_in_cluster(KIND, other_arguments, settings, 1, 1, tmp_path / "second.log")
    waited = [entry["message"] for entry in timeline(other_arguments) if entry.get("kind") == "scheduling"]
    assert f"1 Insufficient {gpus}" in waited[0]
    first.join(120)
    for training in (arguments, other_arguments):
        assert timeline(training)[-1]["event"] == "succeeded"
        for pod in cluster.pods(job_name(training)):
            assert pod["spec"]["containers"][0]["resources"]["limits"][gpus] == "1"
