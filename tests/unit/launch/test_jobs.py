"""The whole launcher against an API server that plays recordings: what it makes, says, leaves, and how it ends."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosyflow.errors import CosyFlowError
from cosyflow.launch.client import Cluster
from cosyflow.launch.follow.attempts import Attempts
from cosyflow.launch.follow.timeline import Timeline
from cosyflow.launch.job import run_of, train_in_cluster
from cosyflow.launch.kinds import KINDS
from cosyflow.launch.kinds.kind import JobKind
from cosyflow.launch.settings import JobSettings
from cosyflow.launch.spec import JobSpec, base_name
from cosyflow.training.arguments import Arguments
from cosyflow.training.parent import PARENT_VARIABLE, TOKEN_FOLDER
from tests.unit.launch.fake_api import NAMESPACE, FakeCluster
from tests.unit.launch.kinds.other_kind import POD_LABEL, OtherKind

pytestmark = pytest.mark.medium

KIND = KINDS["pytorchjob"]


class Launch:
    """A training in the fake cluster, which sees this machine's files by a volume."""

    def __init__(self, folder: Path) -> None:
        for name in ("recipe.yaml", "train.list", "cv.list"):
            (folder / name).write_text("version: test\n")
        self.model_dir = folder / "model"
        self.log = folder / "train.log"
        self.arguments = Arguments(
            config=str(folder / "recipe.yaml"),
            train_data=str(folder / "train.list"),
            cv_data=str(folder / "cv.list"),
            model_dir=str(self.model_dir),
        )
        self.settings = JobSettings(
            image="train:1",
            volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            volume_mounts=[{"name": "data", "mountPath": str(folder)}],
        )
        self.base = base_name("llm", str(self.model_dir))

    def run(self, num_nodes: int = 1, kind: JobKind = KIND, **settings: Any) -> list[str]:
        return train_in_cluster(kind, self.arguments, replace(self.settings, **settings), num_nodes, 0, self.log)

    def fail(self, match: str, num_nodes: int = 1, **settings: Any) -> None:
        with pytest.raises(CosyFlowError, match=match) as failure:
            self.run(num_nodes, **settings)
        assert "\n" not in str(failure.value)

    def timeline(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.model_dir / "timeline.jsonl").read_text().splitlines()]

    def events(self) -> list[str]:
        return [entry["event"] for entry in self.timeline()]

    def manifest(self, run: str, attempt: int = 0) -> dict[str, Any]:
        return KIND.manifest(
            JobSpec(
                base=self.base,
                namespace=NAMESPACE,
                run=run,
                attempt=attempt,
                module="cosyflow.training",
                arguments=(),
                num_nodes=1,
                gpus_per_node=0,
                settings=self.settings,
            )
        )


@pytest.fixture
def launch(tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Launch:
    for name in ("COSYFLOW_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    return Launch(tmp_path)


@pytest.mark.slow
def test_a_good_run_with_every_trouble_of_a_watch(
    launch: Launch, cluster: FakeCluster, capfd: pytest.CaptureFixture[str]
) -> None:
    """410, a cut watch, a cut log and a restarted API server; each line of the log is there once."""
    cluster.play("succeeded")
    assert launch.run(num_nodes=2) == ["job.yaml", "timeline.jsonl"]

    shown = capfd.readouterr().out
    logged = launch.log.read_text().splitlines()
    for number in range(1, 5):
        assert sum(f"update {number} " in line for line in logged) == 1
        assert f"update {number} " in shown
    assert "has no node: Unschedulable: 0/1 nodes are available: 1 Insufficient cpu." in shown

    assert yaml.safe_load((launch.model_dir / "job.yaml").read_text()) == {
        **{key: cluster.created[0][key] for key in ("apiVersion", "kind", "spec")},
        "metadata": {
            key: value for key, value in cluster.created[0]["metadata"].items() if key not in ("uid", "resourceVersion")
        },
    }
    events = launch.events()
    assert events[0] == "created"
    assert events[-1] == "succeeded"
    assert {"waiting", "running", "api-lost", "api-back"} <= set(events)
    assert (launch.model_dir / "heartbeat").exists()
    assert sum("watch" in call for call in cluster.calls) >= 3


def test_a_failed_gang_starts_again_and_the_run_ends_well(launch: Launch, cluster: FakeCluster) -> None:
    cluster.play("failed-once")
    launch.run(num_nodes=2)
    assert [job["metadata"]["name"] for job in cluster.created] == [launch.base, f"{launch.base}-r1"]
    masters = [job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"] for job in cluster.created]
    arguments = [master["containers"][0]["args"] for master in masters]
    assert arguments[1] == [*arguments[0], "--resume", "auto"]
    failed = [entry for entry in launch.timeline() if entry["event"] == "pod-failed"]
    assert [(entry["pod"].removeprefix(launch.base), entry["status"]) for entry in failed] == [
        ("-worker-0", 137),
        ("-master-0", 1),
    ]
    assert "OOMKilled\n| [train llm] loads a shard\nevent Evicted: The node was low on resource" in failed[0]["message"]


def test_a_kind_of_another_shape_is_followed_and_started_again_as_well(launch: Launch, cluster: FakeCluster) -> None:
    cluster.pod_label = POD_LABEL
    cluster.play("other-kind")
    launch.run(num_nodes=2, kind=OtherKind())
    assert [job["kind"] for job in cluster.created] == ["OtherJob", "OtherJob"]
    assert launch.log.read_text().splitlines() == [
        "[train llm] update 1  loss 5.1",
        "[train llm] goes on from epoch_0_step_1",
    ]
    failed = [entry["pod"] for entry in launch.timeline() if entry["event"] == "pod-failed"]
    assert failed == [f"{launch.base}-node-0-1-8vbqz", f"{launch.base}-node-0-0-k2x9p"]


def test_without_restarts_a_failure_is_a_failure(launch: Launch, cluster: FakeCluster) -> None:
    """The reason is that of the pod that failed first."""
    cluster.play("failed-once")
    launch.fail(
        rf"training job {NAMESPACE}/{launch.base}: {launch.base}-worker-0: exit status 137, OOMKilled: RuntimeError:"
        r" Connection closed by peer .*\(after 0 restarts\); see .*timeline.jsonl$",
        num_nodes=2,
        max_restarts=0,
    )


def test_a_certain_failure_fails_once_and_a_retry_ends_without_a_job(launch: Launch, cluster: FakeCluster) -> None:
    """The retry says what is wrong and how to try again on purpose."""
    cluster.play("user-error")
    launch.fail(
        rf"training job {NAMESPACE}/{launch.base}: train.data.list:3: no such shard"
        r" \(it would fail again, and is not started again\)"
    )
    start = time.monotonic()
    record = launch.model_dir / "failure.json"
    launch.fail(
        rf"{launch.base} failed, .*: train.data.list:3: no such shard. .* remove {record}, or start another run"
    )
    assert time.monotonic() - start < 5
    assert len(cluster.created) == 1
    assert launch.events()[-1] == "not-started"

    record.unlink()
    launch.fail(": train.data.list:3: no such shard")
    assert len(cluster.created) == 2


@pytest.mark.parametrize("change", ["argument", "recipe", "image"])
def test_what_is_changed_is_tried_again(launch: Launch, cluster: FakeCluster, change: str) -> None:
    cluster.play("user-error")
    launch.fail("no such shard")
    if change == "argument":
        launch.arguments = replace(launch.arguments, max_steps=3)
    elif change == "recipe":
        Path(launch.arguments.config).write_text("version: another\n")
    launch.fail(": train.data.list:3: no such shard", image="train:2" if change == "image" else "train:1")
    assert len(cluster.created) == 2


def test_a_loss_that_is_not_finite_again_at_the_same_update_is_certain(launch: Launch, cluster: FakeCluster) -> None:
    cluster.play("not-finite-again")
    launch.fail("update 7: the loss is not finite", max_restarts=9)
    launch.fail(f"{launch.base}-r1 failed, and the same would fail again: update 7: the loss is not finite")
    assert len(cluster.created) == 2


@pytest.mark.parametrize(("recording", "jobs"), [("not-finite-elsewhere", 3), ("store-outage", 2)])
def test_what_need_not_come_again_is_tried_again(
    launch: Launch, cluster: FakeCluster, recording: str, jobs: int
) -> None:
    cluster.play(recording)
    launch.run()
    assert len(cluster.created) == jobs
    assert not (launch.model_dir / "failure.json").exists()


def test_a_training_knows_the_workflow_that_it_ends_with(
    launch: Launch, cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher is a step of a Workflow: the job's pods get its place and a token to ask for it."""
    workflow = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "cosyvoice-x7k2p", "uid": "0123-4567"}
    cluster.pods["launcher"] = {
        "metadata": {
            "name": "launcher",
            "namespace": NAMESPACE,
            "uid": "1",
            "labels": {"pipeline/runid": "run-1"},
            "ownerReferences": [workflow],
        },
        "spec": {"containers": [{"name": "main", "image": "train:1"}]},
    }
    (tmp_path / "token").write_text("of the launcher")
    monkeypatch.setattr("cosyflow.launch.client.LAUNCHER_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KFP_POD_NAME", "launcher")
    cluster.play("failed-once")
    launch.run(num_nodes=2)
    for job in cluster.created:
        assert job["metadata"]["ownerReferences"] == [workflow]
        for replica in job["spec"]["pytorchReplicaSpecs"].values():
            pod = replica["template"]["spec"]
            (container,) = pod["containers"]
            parent = next(entry["value"] for entry in container["env"] if entry["name"] == PARENT_VARIABLE)
            assert parent == f"/apis/argoproj.io/v1alpha1/namespaces/{NAMESPACE}/workflows/cosyvoice-x7k2p 0123-4567"
            (mount,) = [mount for mount in container["volumeMounts"] if mount["mountPath"] == TOKEN_FOLDER]
            (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
            assert [next(iter(source)) for source in volume["projected"]["sources"]] == [
                "serviceAccountToken",
                "configMap",
            ]
            assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("recording", "limits", "message"),
    [
        ("no-image", {"pull_seconds": 1}, "cannot get the image nowhere/train:1: ImagePullBackOff: .*not found"),
        ("no-secret", {"pull_seconds": 1}, 'CreateContainerConfigError: secret "mlpipeline-minio-artifact" not found'),
        (
            "unschedulable",
            {"pending_seconds": 1},
            "has no node: Unschedulable: 0/3 nodes .* Insufficient nvidia.com/gpu",
        ),
        ("nothing", {"pending_seconds": 1}, "controller has not made its pods yet .*FailedCreatePod: exceeded quota"),
    ],
)
def test_what_cannot_start_is_explained_and_removed(
    launch: Launch, cluster: FakeCluster, recording: str, limits: dict[str, float], message: str
) -> None:
    cluster.play(recording)
    start = time.monotonic()
    launch.fail(message, **limits)
    assert time.monotonic() - start < 15
    assert cluster.deleted == [launch.base]


@pytest.mark.medium
def test_the_time_in_a_queue_does_not_count(launch: Launch, cluster: FakeCluster) -> None:
    cluster.play("queued")
    launch.run(queue="training", pending_seconds=1)
    assert cluster.created[0]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"


def test_a_job_that_somebody_deletes_is_a_failure(launch: Launch, cluster: FakeCluster) -> None:
    cluster.play("deleted")
    launch.fail(rf"the job {launch.base} was deleted while it was followed")
    assert len(cluster.created) == 1


def test_a_retried_launcher_goes_on_following_its_job(launch: Launch, cluster: FakeCluster) -> None:
    """The job that is there is the newest attempt of the same run: nothing is created."""
    cluster.play("failed-once")
    run = _run_label(launch)
    cluster.create(launch.manifest(run, attempt=1))
    launch.run()
    assert len(cluster.created) == 1
    assert launch.events()[0] == "adopted"


def test_a_retried_launcher_after_a_failed_job_starts_the_next_attempt(launch: Launch, cluster: FakeCluster) -> None:
    job = launch.manifest(_run_label(launch))
    job["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
    cluster.create(job, played=False)
    cluster.play("failed-once")
    launch.run()
    assert [job["metadata"]["name"] for job in cluster.created] == [launch.base, f"{launch.base}-r1"]


def test_a_finished_job_is_not_trained_again(launch: Launch, cluster: FakeCluster) -> None:
    job = launch.manifest(_run_label(launch))
    job["status"] = {"conditions": [{"type": "Succeeded", "status": "True"}]}
    cluster.create(job, played=False)
    launch.run()
    assert len(cluster.created) == 1


@pytest.mark.parametrize("labelled", [True, False])
def test_a_job_of_another_run_is_refused_and_left_alone(launch: Launch, cluster: FakeCluster, labelled: bool) -> None:
    job = launch.manifest("another-run")
    if not labelled:
        job["metadata"]["labels"] = {}
    cluster.create(job, played=False)
    launch.fail(
        rf"{NAMESPACE}/{launch.base} is there already and belongs to another run .*kubectl -n {NAMESPACE} delete"
    )
    assert not cluster.deleted
    assert not launch.model_dir.exists()


def test_two_launchers_at_the_same_moment_make_one_job(launch: Launch, cluster: FakeCluster) -> None:
    """The second finds the name taken (409) by a job of its own run."""
    run = _run_label(launch)
    spec = JobSpec(
        base=launch.base,
        namespace=NAMESPACE,
        run=run,
        attempt=0,
        module="cosyflow.training",
        arguments=(),
        num_nodes=1,
        gpus_per_node=0,
        settings=launch.settings,
    )
    told: list[str] = []
    timeline = Timeline(str(launch.model_dir / "timeline.jsonl"), told.append)
    model_dir = str(launch.model_dir)
    launchers = [Attempts(Cluster(KIND), spec, model_dir, "work", timeline, launch.log) for _ in range(2)]
    uids = [launcher.create(0)["metadata"]["uid"] for launcher in launchers]
    assert uids[0] == uids[1]
    assert told == [f"created {NAMESPACE}/{launch.base}", f"goes on following {launch.base}"]


def test_an_outage_longer_than_allowed_is_an_error(launch: Launch, cluster: FakeCluster) -> None:
    cluster.down_until = time.monotonic() + 60
    launch.fail("the API server is unreachable", outage_seconds=1)


def test_a_refused_call_names_the_call(launch: Launch, cluster: FakeCluster, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(kubeconfig.read_text().replace("token-of-the-test", "wrong"))
    launch.fail("cannot list PyTorchJobs: the API server answers 401: Unauthorized")


def test_what_pods_cannot_see_is_refused(launch: Launch) -> None:
    launch.fail(r"train_data: .*: the job's pods cannot see it; put it under s3://", volume_mounts=[])
    launch.fail(r"no image for the job's pods", image="")
    launch.fail(r"cannot reach http://127.0.0.1:9000; give the store's address", s3_endpoint="http://127.0.0.1:9000")


def _run_label(launch: Launch) -> str:
    return run_of(launch.arguments)
