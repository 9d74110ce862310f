"""The whole pipeline on a Kubeflow Pipelines server: it works, repeats nothing, fails plainly and ends when told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosyflow import storage
from cosyflow.launch.pytorchjob.client import Cluster
from cosyflow.launch.pytorchjob.manifest import RUN_LABEL
from cosyflow.launch.pytorchjob.state import ending
from cosyflow.stage import Manifest
from cosyflow.stages import NUMBERS, SUBSET_STAGES
from cosyflow.stages.selected import is_skipped
from pipelines.submitting import submit
from tests.cluster.conftest import NAMESPACE, SPEECH
from tests.cluster.kfp.metadata import metric, reach_metadata
from tests.cluster.kfp.server import EXPERIMENT, Server

pytestmark = pytest.mark.slow

Figure = Callable[[str], None]
Schedule = Callable[[Path, dict[str, Any]], str]

SUBSETS = ("train-clean-100", "dev-clean")
EPOCHS = 2
NODES = 2
RUN_SECONDS = 1500
LEFT_BEHIND_SECONDS = 120
KILL = (
    "import os, pathlib, signal\n"
    "for place in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
    "    if b'kfp.dsl.executor_main' in place.read_bytes() and int(place.parent.name) != os.getpid():\n"
    "        os.kill(int(place.parent.name), signal.SIGKILL)\n"
)


@dataclass(frozen=True)
class Finished:
    """A run that ended well, and what its stages handed on."""

    run: str
    parameters: dict[str, Any]
    manifests: list[Manifest]

    def of(self, stage: str) -> list[Manifest]:
        return [manifest for manifest in self.manifests if manifest.stage == stage]


@pytest.fixture(scope="module")
def parameters(module_store: str, pretrained: str, archives: str) -> dict[str, Any]:
    """Of a small model, trained by two pods without a GPU."""
    job = storage.join(module_store, "job.yaml")
    settings = {
        "shm_size": "64Mi",
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "3Gi"}},
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "GLOO_SOCKET_IFNAME", "value": "eth0"}],
    }
    storage.write_text(job, yaml.safe_dump(settings))
    train, dev = SUBSETS
    return {
        "recipe": "cosyvoice2.tiny",
        "overrides": [f"train_conf.max_epoch={EPOCHS}"],
        "data_root": storage.join(module_store, "data"),
        "data_url": archives,
        "pretrained_dir": pretrained,
        "train_subsets": [train],
        "dev_subsets": [dev],
        "test_subsets": ["none"],
        "num_processes": 1,
        "num_utts_per_parquet": 16,
        "job": job,
        "num_nodes": NODES,
        "gpus_per_node": 0,
        "num_workers": 0,
        "pin_memory": False,
        "average_num": 2,
        "experiment": EXPERIMENT,
    }


@pytest.fixture(scope="module")
def first(server: Server, package: Path, parameters: dict[str, Any], figure: Figure) -> Finished:
    run = server.submit(package, "first", parameters)
    assert server.wait(run, RUN_SECONDS) == "SUCCEEDED", server.tasks(run)
    figure(f"the whole pipeline on a server: {server.seconds(run):.0f} s")
    return Finished(run, parameters, server.manifests(run))


@pytest.fixture(scope="module")
def second(server: Server, cached_package: Path, first: Finished, figure: Figure) -> Finished:
    """The same again, in a form that the server's cache may remember."""
    run = server.submit(cached_package, "second", first.parameters)
    assert server.wait(run, RUN_SECONDS) == "SUCCEEDED", server.tasks(run)
    figure(f"the same again, which finds everything done: {server.seconds(run):.0f} s")
    return Finished(run, first.parameters, server.manifests(run))


def wait_for(what: str, condition: Callable[[], bool], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"{what}: not within {seconds} s"
        time.sleep(1)


def expected_tasks() -> dict[str, int]:
    return {"plan": 1, "report": 1} | {stage: len(SUBSETS) if stage in SUBSET_STAGES else 1 for stage in NUMBERS}


def test_every_task_succeeds(server: Server, first: Finished) -> None:
    states = server.states(first.run, list(expected_tasks()))
    assert states == {name: ["SUCCEEDED"] * count for name, count in expected_tasks().items()}


def test_every_stage_leaves_its_artifact(first: Finished) -> None:
    assert {stage: len(first.of(stage)) for stage in NUMBERS} == {stage: expected_tasks()[stage] for stage in NUMBERS}
    assert not any(manifest.reused for manifest in first.manifests)
    spoken = {subset: len(list((SPEECH / subset).rglob("*.wav"))) for subset in SUBSETS}
    for stage in ("prepare", "speaker-embedding", "speech-token", "parquet"):
        assert {manifest.name: manifest.counts["outputs"] for manifest in first.of(stage)} == spoken
    for manifest in first.manifests:
        for file, size in manifest.files.items():
            assert storage.size(storage.join(manifest.uri, file)) == size


def test_every_stage_reports_its_numbers_as_metrics(server: Server, first: Finished) -> None:
    (uri,) = [uri for uri in server.artifacts(first.run, "manifest") if Manifest.read(uri).stage == "train"]
    (trained,) = first.of("train")
    with reach_metadata(NAMESPACE) as metadata:
        metrics = metadata.artifact(server.own_name(storage.join(storage.parent(uri), "metrics")))
    for name, value in {**trained.counts, "train_loss_last": trained.details["train_loss_last"]}.items():
        assert metric(metrics, name) == pytest.approx(value, abs=1e-6), name  # the store keeps six decimals


def test_the_report_says_how_the_run_ended_and_what_there_is(server: Server, first: Finished) -> None:
    (summary,) = server.artifacts(first.run, "summary")
    page = storage.read_text(summary)
    assert "Ended as **SUCCEEDED**" in page
    for stage in NUMBERS:
        assert f"| {stage} |" in page


def test_training_was_a_job_of_two_pods_that_is_deleted_with_the_run(first: Finished) -> None:
    (trained,) = first.of("train")
    assert trained.details["device"] == f"{NODES} x cpu"
    assert trained.details["train_loss_last"] < trained.details["train_loss_first"]
    (job,) = Cluster(NAMESPACE).jobs(f"{RUN_LABEL}={first.run}")
    assert [owner["kind"] for owner in job["metadata"]["ownerReferences"]] == ["Workflow"]
    assert ending(job) == "succeeded"


def test_the_second_run_finds_everything_done(second: Finished) -> None:
    assert len(second.manifests) == sum(expected_tasks()[stage] for stage in NUMBERS)
    assert all(manifest.reused for manifest in second.manifests)


def test_a_schedule_starts_a_run_that_the_servers_cache_answers(
    server: Server, cached_package: Path, second: Finished, schedule: Schedule, figure: Figure
) -> None:
    run = schedule(cached_package, second.parameters)
    assert server.wait(run, RUN_SECONDS) == "SUCCEEDED", server.tasks(run)
    figure(f"the same again, answered by the server's cache: {server.seconds(run):.0f} s")
    stages = len(second.manifests)
    assert server.executions(run) == {"SKIPPED": stages, "SUCCEEDED": sum(expected_tasks().values()) - stages}


@pytest.fixture
def schedule(server: Server) -> Iterator[Schedule]:
    """Starts a run every minute until there is one; gives its id. The schedule is deleted afterwards."""
    client, made = server.client, []

    def _schedule(package: Path, parameters: dict[str, Any]) -> str:
        pipeline = client.upload_pipeline(str(package), pipeline_name=f"cosyflow-test-{time.time_ns()}").pipeline_id
        version = client.list_pipeline_versions(pipeline).pipeline_versions[0].pipeline_version_id
        experiment = client.get_experiment(experiment_name=EXPERIMENT, namespace=server.namespace).experiment_id
        recurring = client.create_recurring_run(
            experiment,
            "recurring",
            interval_second=60,
            params=parameters,
            pipeline_id=pipeline,
            version_id=version,
        ).recurring_run_id
        made.append((recurring, pipeline, version))

        def started() -> list[str]:
            runs = client.list_runs(experiment_id=experiment, sort_by="created_at desc", page_size=20).runs or []
            return [run.run_id for run in runs if run.recurring_run_id == recurring]

        wait_for("a scheduled run", lambda: bool(started()), 180)
        client.disable_recurring_run(recurring)
        server.runs.extend(started())
        return started()[-1]

    yield _schedule
    for recurring, pipeline, version in made:
        client.delete_recurring_run(recurring)
        client.delete_pipeline_version(pipeline, version)
        client.delete_pipeline(pipeline)


def test_a_failing_stage_fails_the_run_which_goes_on_from_there_when_it_is_retried(
    server: Server, package: Path, parameters: dict[str, Any], module_store: str
) -> None:
    tree = storage.join(module_store, "speech")
    subsets = ("some-train", "some-dev")
    chapters = sorted(path.parent for path in (SPEECH / SUBSETS[0]).rglob("*_000000.wav"))[: len(subsets)]
    places = [
        storage.join(tree, subset, *chapter.parts[-2:]) for subset, chapter in zip(subsets, chapters, strict=True)
    ]
    storage.upload_tree(chapters[0], places[0])
    own = {
        "data_root": storage.join(module_store, "own"),
        "data_url": tree,
        "train_subsets": subsets[:1],
        "dev_subsets": subsets[1:],
        "stop_stage": NUMBERS["prepare"],
    }
    run = server.submit(package, "failing", parameters | own)
    assert server.wait(run, RUN_SECONDS) == "FAILED"
    assert sorted(server.states(run, ["download"])["download"]) == ["FAILED", "SUCCEEDED"]
    reason = f"{tree}/{subsets[1]}: no such folder, or nothing in it"
    attempts = [log for log in server.logs(run).values() if reason in log]
    assert len(attempts) == 2
    (summary,) = server.artifacts(run, "summary")
    page = storage.read_text(summary)
    assert "Ended as **FAILED**" in page
    assert "graph of the run shows which task" in page  # the server gives the report no reason

    storage.upload_tree(chapters[1], places[1])
    server.retry(run)
    assert server.wait(run, RUN_SECONDS) == "SUCCEEDED", server.tasks(run)
    manifests = server.manifests(run)
    worked = [(manifest.stage, manifest.name) for manifest in manifests if not is_skipped(manifest)]
    assert sorted(worked) == sorted((stage, subset) for stage in ("download", "prepare") for subset in subsets)
    assert not any(manifest.reused for manifest in manifests)
    assert {manifest.stage for manifest in manifests} == set(NUMBERS)


def test_a_killed_launcher_finds_its_job_again_and_a_terminated_run_leaves_none(
    server: Server, image_lock: Path, first: Finished, figure: Figure
) -> None:
    long = {
        "overrides": ["train_conf.max_epoch=100000"],
        "start_stage": NUMBERS["train"],
        "stop_stage": NUMBERS["train"],
    }
    link = submit(first.parameters | long, server.host, None, None, EXPERIMENT, "terminated", image_lock)
    run = link.rpartition("/")[2]
    server.runs.append(run)
    cluster = Cluster(NAMESPACE)

    def jobs() -> list[Any]:
        return cluster.jobs(f"{RUN_LABEL}={run}")

    def pods(phase: str) -> list[Any]:
        return [
            pod for job in jobs() for pod in cluster.pods(job["metadata"]["name"]) if pod["status"]["phase"] == phase
        ]

    wait_for("a training", lambda: len(pods("Running")) == NODES, 600)
    early = [manifest for manifest in server.manifests(run) if manifest.stage in SUBSET_STAGES]
    assert len(early) == len(SUBSETS) * len(SUBSET_STAGES)
    assert all(manifest.reused for manifest in early)

    name = jobs()[0]["metadata"]["name"]
    (launcher,) = server.running_pods(run)
    server.execute(launcher, "python", "-c", KILL)
    wait_for(
        "a second launcher", lambda: any(f"goes on following {name}" in log for log in server.logs(run).values()), 180
    )
    assert [job["metadata"]["name"] for job in jobs()] == [name]
    assert len(pods("Running")) == NODES

    server.client.terminate_run(run)
    began = time.monotonic()
    wait_for("the end of the training", lambda: not pods("Running") and all(map(ending, jobs())), LEFT_BEHIND_SECONDS)
    figure(f"the training of a terminated run ended after {time.monotonic() - began:.0f} s")
    assert server.wait(run, 60) in ("CANCELED", "FAILED")
    server.delete(run)
    wait_for("its deletion", lambda: not jobs(), 60)
