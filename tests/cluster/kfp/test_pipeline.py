"""The whole pipeline on a Kubeflow Pipelines server: it works, repeats nothing, fails plainly and ends when told."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from cosyflow import storage
from cosyflow.launch.client import Cluster
from cosyflow.launch.kinds import KINDS
from cosyflow.launch.own_pod import SUBSET_LABEL
from cosyflow.launch.settings import LAUNCHER_SECRET
from cosyflow.launch.spec import RUN_LABEL
from cosyflow.run.ends import read_ends
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest
from cosyflow.training.heartbeat import HEARTBEAT_VARIABLE
from pipelines.stage_task import STAGE_LABEL
from tests.cluster.conftest import NAMESPACE, REPOSITORY, SPEECH
from tests.cluster.kfp.metadata import metric, reach_metadata
from tests.cluster.kfp.server import DRIVER, EXPERIMENT, Server
from tests.cluster.own_namespace import own_namespace
from tests.cluster.small_training import IDLE_LOAD, STOP_BUSY_SECONDS, STOP_SECONDS
from tests.cluster.test_manifests import kubectl

pytestmark = pytest.mark.slow

KIND = KINDS["pytorchjob"]

Figure = Callable[[str], None]
Schedule = Callable[[Path, str], str]

SUBSETS = ("train-clean-100", "dev-clean", "test-clean")
EPOCHS = 2
NODES = 2
RUN_SECONDS = 1500
DONE_SECONDS, BUSY_SECONDS = 60, 240
"""A run that finds everything done takes so long at most, on a machine with nothing else to do and on a busy one."""
UI = Path(os.environ.get("COSYFLOW_TEST_KFP_UI", "/tmp/kfp-ui/run.sh"))  # noqa: S108
"""A program that shows the server's UI at the port of this machine that it is given."""
KILL = (
    "import os, pathlib, signal\n"
    "for place in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
    "    if b'kfp.dsl.executor_main' in place.read_bytes() and int(place.parent.name) != os.getpid():\n"
    "        os.kill(int(place.parent.name), signal.SIGKILL)\n"
)


@dataclass(frozen=True)
class Finished:
    """A run that ended well, and what those of its tasks handed on that the server's cache did not answer."""

    run: str
    manifests: list[Manifest]

    def of(self, stage: str) -> list[Manifest]:
        return [manifest for manifest in self.manifests if manifest.stage == stage]

    @property
    def made(self) -> set[tuple[str, str]]:
        """The stages that worked, with their subsets or model."""
        return {(manifest.stage, manifest.name) for manifest in self.manifests if not manifest.reused}


@pytest.fixture(scope="module")
def settings(module_store: str, pretrained: str, archives: str) -> dict[str, Any]:
    """Of a small model, trained by two pods without a GPU."""
    job = storage.join(module_store, "job.yaml")
    pods = {
        "service_account": "cosyflow-training",
        "shm_size": "64Mi",
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "3Gi"}},
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}, {"name": "GLOO_SOCKET_IFNAME", "value": "eth0"}],
    }
    storage.write_text(job, yaml.safe_dump(pods))
    train, dev, test = SUBSETS
    return {
        "recipe": "cosyvoice2.tiny",
        "overrides": [f"train_conf.max_epoch={EPOCHS}"],
        "data_root": storage.join(module_store, "data"),
        "data_url": archives,
        "pretrained_dir": pretrained,
        "train_subsets": [train],
        "dev_subsets": [dev],
        "test_subsets": [test],
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


def finish(server: Server, package: Path, name: str, run: str) -> Finished:
    started = server.submit(package, name, run)
    assert server.wait(started, RUN_SECONDS) == "SUCCEEDED", server.tasks(started)
    return Finished(started, server.manifests(started))


@pytest.fixture(scope="module")
def first(server: Server, package: Path, settings: dict[str, Any], figure: Figure) -> Finished:
    finished = finish(server, package, "first", yaml.safe_dump(settings))
    figure(f"the whole pipeline on a server: {server.seconds(finished.run):.0f} s")
    return finished


@pytest.fixture(scope="module")
def again(
    server: Server, package: Path, first: Finished, settings: dict[str, Any], module_store: str, figure: Figure
) -> Finished:
    """The same, described by a file in the store."""
    uri = storage.join(module_store, "run.yaml")
    storage.write_text(uri, yaml.safe_dump(settings))
    load = os.getloadavg()[0]
    finished = finish(server, package, "again", uri)
    seconds = server.seconds(finished.run)
    figure(f"the same again, which finds everything done: {seconds:.0f} s (load of the machine before: {load:.1f})")
    assert seconds < (DONE_SECONDS if load < 1 else BUSY_SECONDS)
    return finished


@pytest.fixture(scope="module")
def changed_settings(settings: dict[str, Any]) -> dict[str, Any]:
    return settings | {"overrides": [*settings["overrides"], "train_conf.optim_conf.lr=0.001"]}


@pytest.fixture(scope="module")
def changed(
    server: Server, package: Path, again: Finished, changed_settings: dict[str, Any], figure: Figure
) -> Finished:
    """Another training on the same data."""
    finished = finish(server, package, "changed", yaml.safe_dump(changed_settings))
    figure(f"with another learning rate, from the same data: {server.seconds(finished.run):.0f} s")
    return finished


@pytest.fixture(scope="module")
def mended(
    server: Server, package: Path, first: Finished, changed: Finished, changed_settings: dict[str, Any], figure: Figure
) -> Finished:
    """That again, of which a shard was deleted."""
    (parquet,) = [manifest for manifest in first.of("parquet") if manifest.name == SUBSETS[1]]
    shard = next(name for name in parquet.files if name.endswith((".tar", ".parquet")))
    storage.remove(storage.join(parquet.uri, shard))
    finished = finish(server, package, "mended", yaml.safe_dump(changed_settings))
    assert storage.size(storage.join(parquet.uri, shard)) == parquet.files[shard]
    figure(f"with a deleted shard: {server.seconds(finished.run):.0f} s")
    return finished


def wait_for(what: str, condition: Callable[[], bool], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"{what}: not within {seconds} s"
        time.sleep(1)


def expected_tasks() -> dict[str, int]:
    stages = {name: len(SUBSETS) if stage.per == "subset" else 1 for name, stage in STAGES.items()}
    return {"plan": 1, "report": 1} | stages


def rows(page: str) -> dict[tuple[str, str], str]:
    """The states in a report's table, by stage and subset or model."""
    cells = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if line.startswith("| ")]
    return {(stage, name): state for _, stage, name, state, *_ in cells if stage in STAGES}


def test_every_task_succeeds(server: Server, first: Finished) -> None:
    expected = {name: ["SUCCEEDED"] * count for name, count in expected_tasks().items()}
    assert server.states(first.run, list(expected)) == expected
    assert server.report(first.run)


def test_every_stage_leaves_its_artifact(first: Finished) -> None:
    assert {stage: len(first.of(stage)) for stage in STAGES} == {stage: expected_tasks()[stage] for stage in STAGES}
    assert not any(manifest.reused for manifest in first.manifests)
    spoken = {subset: len(list((SPEECH / subset).rglob("*.wav"))) for subset in SUBSETS}
    for stage in ("prepare", "speaker-embedding", "speech-token", "parquet"):
        assert {manifest.name: manifest.counts["outputs"] for manifest in first.of(stage)} == spoken
    for manifest in first.manifests:
        for file, size in manifest.files.items():
            assert storage.size(storage.join(manifest.uri, file)) == size


def test_every_manifest_says_which_image_and_run_made_it(
    server: Server, first: Finished, images: dict[str, str], kubernetes_core: Any
) -> None:
    address = kubernetes_core.read_namespaced_config_map("cosyflow", NAMESPACE).data["KFP_UI_URL"]
    for manifest in first.manifests:
        assert manifest.made_by["run"] == first.run
        assert manifest.made_by["image"] in images.values()
        assert manifest.made_by["url"] == f"{address}/#/runs/details/{first.run}"


def test_every_stage_reports_its_numbers_as_metrics(server: Server, first: Finished) -> None:
    (uri,) = server.artifacts(first.run, STAGES["train"].makes)
    (trained,) = first.of("train")
    with reach_metadata(NAMESPACE) as metadata:
        metrics = metadata.artifact(server.own_name(storage.join(storage.parent(uri), "training_metrics")))
    for name, value in {**trained.counts, "train_loss_last": trained.details["train_loss_last"]}.items():
        assert metric(metrics, name) == pytest.approx(value, abs=1e-6), name  # the store keeps six decimals


def test_the_report_says_how_the_run_ended_and_what_there_is(server: Server, first: Finished) -> None:
    page = server.report(first.run)
    assert "Ended as **SUCCEEDED**" in page
    assert rows(page) == {(manifest.stage, manifest.name): "made" for manifest in first.manifests}


def test_training_was_a_job_of_two_pods_that_is_deleted_with_the_run(first: Finished) -> None:
    (trained,) = first.of("train")
    assert trained.details["device"] == f"{NODES} x cpu"
    assert trained.details["train_loss_last"] < trained.details["train_loss_first"]
    (job,) = Cluster(KIND, NAMESPACE).jobs(f"{RUN_LABEL}={first.run}")
    assert [owner["kind"] for owner in job["metadata"]["ownerReferences"]] == ["Workflow"]
    assert KIND.ending(job) == "succeeded"


def test_pods_say_which_stage_they_work_on_and_are_not_root(server: Server, first: Finished) -> None:
    pods = [pod for pod in server.pods(first.run) if DRIVER not in pod.metadata.name]
    assert Counter(pod.metadata.labels.get(STAGE_LABEL) for pod in pods) == expected_tasks()
    for pod in pods:
        assert all(container.security_context.run_as_non_root for container in pod.spec.containers)


def test_pods_of_the_loop_say_which_subset_they_work_on(server: Server, first: Finished) -> None:
    pods = [pod for pod in server.pods(first.run) if DRIVER not in pod.metadata.name]
    labels = [(pod.metadata.labels.get(STAGE_LABEL), pod.metadata.labels.get(SUBSET_LABEL)) for pod in pods]
    of_the_loop = [stage for stage, definition in STAGES.items() if definition.per == "subset"]
    expected = {(stage, manifest.name) for stage in of_the_loop for manifest in first.of(stage)}
    assert {(stage, subset) for stage, subset in labels if subset} == expected
    assert {stage for stage, subset in labels if not subset}.isdisjoint(of_the_loop)


def test_a_step_may_label_its_own_pod_and_change_nothing_else(server: Server, first: Finished) -> None:
    mine, other = [pod.metadata for pod in server.pods(first.run) if DRIVER not in pod.metadata.name][:2]
    bound = ["--bound-object-kind", "Pod", "--bound-object-name", mine.name, "--bound-object-uid", mine.uid]
    token = kubectl("--namespace", NAMESPACE, "create", "token", "pipeline-runner", *bound).stdout.strip()

    def refusal(pod: str, change: dict[str, Any]) -> str:
        with as_bearer(token) as core, pytest.raises(ApiException) as refused:
            core.patch_namespaced_pod(pod, NAMESPACE, change)
        return str(refused.value.body)

    label = {"metadata": {"labels": {SUBSET_LABEL: "tried"}}}
    with as_bearer(token) as core:
        core.patch_namespaced_pod(mine.name, NAMESPACE, label)
    assert "its own pod only" in refusal(other.name, label)
    assert "one label only" in refusal(mine.name, {"metadata": {"annotations": {"a": "b"}}})
    assert f"the label {SUBSET_LABEL} only" in refusal(mine.name, {"metadata": {"labels": {STAGE_LABEL: "train"}}})
    image = {"spec": {"containers": [{"name": "main", "image": "localhost/other:1"}]}}
    assert "what its pod runs" in refusal(mine.name, image)


@contextmanager
def as_bearer(token: str) -> Iterator[Any]:
    """The API as the owner of a token has it."""
    configuration = client.Configuration.get_default_copy()
    config.load_kube_config(client_configuration=configuration)
    configuration.cert_file = configuration.key_file = None
    configuration.api_key = {"authorization": f"Bearer {token}"}
    with client.ApiClient(configuration) as api_client:
        yield client.CoreV1Api(api_client)


def test_all_pods_of_a_run_may_be_where_restricted_is_enforced(server: Server, first: Finished) -> None:
    done = kubectl("--namespace", NAMESPACE, "get", "pods", "--selector", f"pipeline/runid={first.run}", "-o", "json")
    found = json.loads(done.stdout)["items"]
    assert len(found) > 2 * sum(expected_tasks().values())  # drivers too
    with own_namespace() as name:
        copies = []
        for number, pod in enumerate(found):
            spec = {key: value for key, value in pod["spec"].items() if key not in ("nodeName", "priority")}
            spec["serviceAccountName"] = spec["serviceAccount"] = "default"
            metadata = {"name": f"pod-{number}", "namespace": name}
            copies.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        tried = kubectl("create", "--dry-run=server", "--filename", "-", given=copies)
    assert tried.returncode == 0, tried.stderr
    assert tried.stdout.count("created (server dry run)") == len(found)


def test_only_train_can_make_jobs(server: Server, first: Finished) -> None:
    def may(account: str, *words: str) -> bool:
        user = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
        return kubectl("auth", "can-i", *words, user, "--namespace", NAMESPACE).stdout.strip() == "yes"

    assert may("cosyflow-launcher", "create", "pytorchjobs.kubeflow.org")
    makes = [("create", kind) for kind in ("pytorchjobs.kubeflow.org", "trainjobs.trainer.kubeflow.org", "jobs.batch")]
    reads = [("get", f"secrets/{LAUNCHER_SECRET}"), ("create", "pods"), ("create", "serviceaccounts/token")]
    for account in ("pipeline-runner", "cosyflow-training", "default"):
        assert [words for words in (*makes, *reads) if may(account, *words)] == [], account
    with_token = {
        pod.metadata.labels.get(STAGE_LABEL)
        for pod in server.pods(first.run)
        if any(volume.secret and volume.secret.secret_name == LAUNCHER_SECRET for volume in pod.spec.volumes)
    }
    assert with_token == {"train"}
    (job,) = Cluster(KIND, NAMESPACE).jobs(f"{RUN_LABEL}={first.run}")
    assert LAUNCHER_SECRET not in json.dumps(job["spec"])


def test_a_run_that_finds_everything_done_starts_no_stage_and_reports_all(
    server: Server, first: Finished, again: Finished
) -> None:
    assert server.executions(again.run) == {"SUCCEEDED": 2}
    page = server.report(again.run)
    assert "Ended as **SUCCEEDED**" in page
    assert rows(page) == {(manifest.stage, manifest.name): "reused" for manifest in first.manifests}


def test_another_training_setting_trains_again_from_the_same_data(
    server: Server, first: Finished, changed: Finished
) -> None:
    (model,) = {manifest.name for manifest in first.of("train")}
    assert changed.made == {(stage, model) for stage in ("train", "average", "export", "register")}
    assert changed.of("merge")[0].uri == first.of("merge")[0].uri
    assert changed.of("train")[0].uri != first.of("train")[0].uri
    page = server.report(changed.run)
    assert "Ended as **SUCCEEDED**" in page
    assert set(rows(page)) == {(manifest.stage, manifest.name) for manifest in first.manifests}


def test_a_deleted_shard_is_made_again_and_nothing_else(server: Server, mended: Finished) -> None:
    assert mended.made == {("parquet", SUBSETS[1])}
    # what the run before did under the same record is answered by the server's cache
    assert server.executions(mended.run)["SKIPPED"] >= len(SUBSETS) * len(("download", "prepare", "embedding", "token"))
    page = server.report(mended.run)
    assert "Ended as **SUCCEEDED**" in page
    assert {what for what, state in rows(page).items() if state == "made"} == mended.made


def test_a_schedule_starts_a_run(
    server: Server, package: Path, mended: Finished, changed_settings: dict[str, Any], schedule: Schedule
) -> None:
    run = schedule(package, yaml.safe_dump(changed_settings))
    assert server.wait(run, RUN_SECONDS) == "SUCCEEDED", server.tasks(run)
    assert server.executions(run) == {"SUCCEEDED": 2}


@pytest.fixture
def schedule(server: Server) -> Iterator[Schedule]:
    """Starts a run every minute until there is one; gives its id. The schedule is deleted afterwards."""
    client, made = server.client, []

    def _schedule(package: Path, run: str) -> str:
        pipeline = client.upload_pipeline(str(package), pipeline_name=f"cosyflow-test-{time.time_ns()}").pipeline_id
        version = client.list_pipeline_versions(pipeline).pipeline_versions[0].pipeline_version_id
        experiment = client.get_experiment(experiment_name=EXPERIMENT, namespace=server.namespace).experiment_id
        recurring = client.create_recurring_run(
            experiment,
            "recurring",
            interval_second=60,
            params={"run": run},
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


def test_a_wrong_run_fails_with_all_that_is_wrong_in_its_report_and_its_log(
    server: Server, package: Path, settings: dict[str, Any], module_store: str
) -> None:
    root = storage.join(module_store, "refused")
    wrong = {"data_root": root, "model": "voice", "average_num": 0, "train_subsets": ["no-such"], "job": root + "/none"}
    run = server.submit(package, "wrong", yaml.safe_dump(settings | wrong))
    assert server.wait(run, RUN_SECONDS) == "FAILED"
    ends, record = read_ends(root, run)
    assert [(end.stage, end.state) for end in ends] == [("plan", "failed")]
    assert not record
    written = [file.path for file in storage.list_files(root)]
    assert all(path.startswith("runs/") for path in written), written
    page, log = server.report(run), server.log_of(run, "plan")
    assert "Ended as **FAILED**" in page
    for setting in ("model", "average_num", "train_subsets", "job"):
        assert f"{setting}: " in ends[0].error
        assert re.search(rf"\*\*plan\*\* failed: .*{setting}: ", page), page
        assert re.search(rf"error: {setting}: ", log), log
    assert "Traceback" not in log
    assert server.executions(run) == {"FAILED": 1, "SUCCEEDED": 1}  # the plan and the report


def test_a_failing_stage_is_named_with_its_reason_and_the_run_goes_on_from_there_when_it_is_retried(
    server: Server, package: Path, settings: dict[str, Any], archives: str, module_store: str
) -> None:
    bucket = f"s3://{urlsplit(archives).path.split('/')[1]}"
    good, own = storage.join(bucket, "60"), storage.join(bucket, "damaged")
    subsets = SUBSETS[:2]
    for name in ("md5sum.txt", *(f"{subset}.tar.gz" for subset in subsets)):
        storage.write_bytes(storage.join(own, name), storage.read_bytes(storage.join(good, name)))
    broken = f"{subsets[1]}.tar.gz"
    whole = storage.read_bytes(storage.join(good, broken))
    storage.write_bytes(storage.join(own, broken), whole[:-8] + bytes(8))
    part = {
        "data_root": storage.join(module_store, "own"),
        "data_url": archives.removesuffix("60") + "damaged",
        "test_subsets": ["none"],
        "stop_stage": STAGES["prepare"].number,
    }
    run = server.submit(package, "failing", yaml.safe_dump(settings | part))
    assert server.wait(run, RUN_SECONDS) == "FAILED"
    assert sorted(server.states(run, ["download"])["download"]) == ["FAILED", "SUCCEEDED"]
    attempts = [log for log in server.logs(run).values() if f"download {subsets[1]}] failed: " in log]
    assert len(attempts) == 2
    page = server.report(run)
    assert "Ended as **FAILED**" in page
    assert re.search(rf"\*\*download {subsets[1]}\*\* failed: .*{broken}", page), page

    storage.write_bytes(storage.join(own, broken), whole)
    server.retry(run)
    assert server.wait(run, RUN_SECONDS) == "SUCCEEDED", server.tasks(run)
    states = {(end.stage, end.name): end.state for end in read_ends(part["data_root"], run)[0]}
    worked = {what for what, state in states.items() if state == "made"}
    assert worked == {(stage, subset) for stage in ("download", "prepare") for subset in subsets}
    assert {state for what, state in states.items() if what not in worked} == {"skipped"}
    assert {stage for stage, _ in states} == set(STAGES)


@pytest.fixture(scope="module")
def endless(
    server: Server,
    image_lock: Path,
    mended: Finished,
    settings: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[str]:
    """What `submit` printed, which started a training without an end."""
    stage = STAGES["train"].number
    long = {"overrides": ["train_conf.max_epoch=100000"], "start_stage": stage, "stop_stage": stage}
    described = tmp_path_factory.mktemp("endless") / "run.yaml"
    described.write_text(yaml.safe_dump(settings | long))
    command = [sys.executable, "-m", "pipelines", "submit", "--run", str(described), "--host", server.host]
    command += ["--namespace", NAMESPACE, "--kfp-experiment", EXPERIMENT, "--images", str(image_lock)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = done.stdout.strip().rpartition("/")[2]
    server.runs.append(run)
    yield done.stdout
    if run in server.runs:
        server.delete(run)


def test_submit_prints_one_line_the_address_of_the_run(server: Server, endless: str) -> None:
    (line,) = endless.splitlines()
    address, run = re.fullmatch(r"(http\S+)/#/runs/details/([0-9a-f-]{36})", line).groups()  # type: ignore[union-attr]
    assert address == server.host
    assert server.client.get_run(run).run_id == run


def test_the_ui_has_a_page_at_the_address_that_submit_prints(server: Server, endless: str) -> None:
    from cosyflow.run.config import from_parameters
    from pipelines.submitting import ui_address

    if not UI.is_file():
        pytest.skip(f"the server's UI is not here: no {UI} (COSYFLOW_TEST_KFP_UI names a program that shows it)")
    run = endless.strip().rpartition("/")[2]
    with shown_ui(server.host) as address:
        asked = from_parameters({"data_root": "s3://bucket", "ui_url": address})
        link = f"{ui_address(asked, server.host)}/#/runs/details/{run}"
        with urllib.request.urlopen(link, timeout=30) as answer:
            page = answer.read().decode()
        assert answer.status == 200
        assert "<title>Kubeflow Pipelines</title>" in page
        with urllib.request.urlopen(f"{address}/apis/v2beta1/runs/{run}", timeout=30) as answer:
            assert json.load(answer)["run_id"] == run  # what the page then asks for


@contextmanager
def shown_ui(host: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    api = urlsplit(host)
    command = [str(UI), str(port), str(api.hostname), str(api.port or 80)]
    shown = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return True
        except OSError:
            return False

    try:
        wait_for("the UI", answers, 60)
        yield address
    finally:
        shown.terminate()
        shown.wait(10)


def test_a_killed_launcher_finds_its_job_again_and_a_terminated_run_leaves_none(
    server: Server, endless: str, figure: Figure
) -> None:
    run = endless.strip().rpartition("/")[2]
    cluster = Cluster(KIND, NAMESPACE)

    def jobs() -> list[Any]:
        return cluster.jobs(f"{RUN_LABEL}={run}")

    def pods(phase: str) -> list[Any]:
        return [
            pod for job in jobs() for pod in cluster.pods(job["metadata"]["name"]) if pod["status"]["phase"] == phase
        ]

    wait_for("a training", lambda: len(pods("Running")) == NODES, 600)
    early = [manifest for manifest in server.manifests(run) if STAGES[manifest.stage].per == "subset"]
    assert all(manifest.reused for manifest in early)

    name = jobs()[0]["metadata"]["name"]
    (launcher,) = server.running_pods(run)
    server.execute(launcher, "python", "-c", KILL)
    wait_for(
        "a second launcher", lambda: any(f"goes on following {name}" in log for log in server.logs(run).values()), 180
    )
    assert [job["metadata"]["name"] for job in jobs()] == [name]
    assert len(pods("Running")) == NODES

    (path,) = [entry["value"] for entry in environment(jobs()[0]) if entry["name"] == HEARTBEAT_VARIABLE]
    load = os.getloadavg()[0]
    server.client.terminate_run(run)
    began = time.monotonic()
    wait_for("the end of the training", lambda: not pods("Running"), 120)
    seconds = time.monotonic() - began
    figure(f"the training of a terminated run ended after {seconds:.0f} s (load of the machine before: {load:.1f})")
    assert seconds < (STOP_SECONDS if load < IDLE_LOAD else STOP_BUSY_SECONDS)
    check_newest_checkpoint(storage.parent(path))
    wait_for("the end of the job", lambda: all(map(KIND.ending, jobs())), 60)
    assert server.wait(run, 60) in ("CANCELED", "FAILED")
    server.delete(run)
    wait_for("its deletion", lambda: not jobs(), 60)


def environment(job: dict[str, Any]) -> list[dict[str, str]]:
    """Of the first pod of a job."""
    (container,) = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    found: list[dict[str, str]] = container["env"]
    return found


def check_newest_checkpoint(model_dir: str) -> None:
    """Weights, record and state of the newest checkpoint are there, and the weights can be read."""
    names = [file.path for file in storage.list_files(model_dir)]
    records = {
        name.removesuffix(".yaml"): yaml.safe_load(storage.read_text(storage.join(model_dir, name)))
        for name in names
        if re.fullmatch(r"epoch_\w+\.yaml", name)
    }
    newest = max(records, key=lambda tag: int(records[tag]["step"]))
    assert any(name.startswith(f"{newest}.state") for name in names), names
    with storage.local_copy(storage.join(model_dir, f"{newest}.pt")) as path:
        assert torch.load(path, weights_only=True)
