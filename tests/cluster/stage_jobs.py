"""Stages of a run, and commands of `cosyflow`, as Kubernetes Jobs: an image and nothing that a pipeline's pods lack."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import yaml
from kubernetes import client

from cosyflow.launch.settings import LAUNCHER_FOLDER, LAUNCHER_SECRET
from cosyflow.run.execute import RUN_VARIABLE

MLFLOW_HERE = os.environ.get("COSYFLOW_TEST_MLFLOW", "http://127.0.0.1:30050")
"""MLflow as this machine reaches it."""
ACCOUNT = "pipeline-runner"
ENDPOINTS = "cosyflow"
"""ConfigMap of k8s/base with the addresses of the store and of MLflow."""
SECRET = "mlpipeline-minio-artifact"  # noqa: S105 - a name
SECRET_KEYS = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"}
CONTAINER = "main"
PLAN = """
import sys
from cosyflow.run.entry import begin

begin(sys.argv[1], {})
"""
"""What the component `plan` does where no parameter is changed."""
STAGE = """
import inspect, sys
from pathlib import Path

from kfp import dsl

import components
from cosyflow import storage

stage, record, subset, *manifests = sys.argv[1:]
function = getattr(components, stage.replace("-", "_")).python_func
names = list(inspect.signature(function).parameters)
given, made, metrics = names[: names.index("record")], *names[-2:]
inputs = [dsl.Artifact(uri=f"/tmp/input-{number}") for number in range(len(manifests))]
for artifact, manifest in zip(inputs, manifests):
    Path(artifact.path).write_text(storage.read_text(manifest))
values = {"record": record, "stamp": "", made: dsl.Artifact(uri="/tmp/made"), metrics: dsl.Metrics(uri="/tmp/metrics")}
values |= {given[0]: subset or inputs} if len(given) == 1 and (subset or stage == "merge") else dict(zip(given, inputs))
values |= {"task_config": dsl.TaskConfig()} if "task_config" in names else {}
function(**values)
"""
"""Calls a stage's component. Arguments: stage, record, subset or "", and the manifests that go in, as URIs."""
Object = dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A Job that ended.

    Attributes:
        start_seconds: from making the Job to the first line of its log, by this machine's clock and the node's.
        seconds: from making the Job to its end.
    """

    name: str
    succeeded: bool
    log: str
    start_seconds: float
    seconds: float


def pod_spec(image: str, command: Sequence[str], launches: bool = False, cpu: str = "100m", run: str = "") -> Object:
    """A pod that `restricted` Pod Security admits, with a read-only root file system and credentials by reference.

    Args:
        launches: give it the launcher's token, as the task `train` has it.
        run: id of the run that it is a task of; it then has the token of its account, which may do nothing.
    """
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}} for name, key in SECRET_KEYS.items()
    ]
    volumes = [{"name": "tmp", "emptyDir": {}}]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - a volume
    if launches:
        volumes.append({"name": LAUNCHER_SECRET, "secret": {"secretName": LAUNCHER_SECRET, "optional": True}})
        mounts.append({"name": LAUNCHER_SECRET, "mountPath": LAUNCHER_FOLDER})
    return {
        "restartPolicy": "Never",
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": bool(run),
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": CONTAINER,
                "image": image,
                "command": list(command),
                "envFrom": [{"configMapRef": {"name": ENDPOINTS}}],
                "env": [
                    *secret,
                    {"name": "OMP_NUM_THREADS", "value": "1"},
                    *([{"name": RUN_VARIABLE, "value": run}] if run else []),
                ],
                "resources": {"requests": {"cpu": cpu, "memory": "256Mi"}, "limits": {"memory": "3Gi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }


class StageJobs:
    """Makes Jobs in a namespace and waits for them; `remove` takes away all that were made."""

    def __init__(self, api: client.ApiClient, namespace: str, images: Mapping[str, str], run: str) -> None:
        self._batch, self._core = client.BatchV1Api(api), client.CoreV1Api(api)
        self._namespace, self._images, self._run = namespace, images, run
        self._made: list[str] = []

    @property
    def run_id(self) -> str:
        """Of the run whose stages are run here."""
        return self._run

    def start(self, image: str, name: str, *command: str, cpu: str = "100m") -> str:
        """Makes a Job that runs `cosyflow COMMAND` in one of the images; returns its name."""
        return self._make(name, pod_spec(self._images[image], ["cosyflow", *command], cpu=cpu))

    def run(self, image: str, name: str, *command: str, cpu: str = "100m") -> Finished:
        """Makes a Job as `start` does and waits for its good end."""
        return self._well(self.start(image, name, *command, cpu=cpu))

    def plan(self, settings: Mapping[str, Any]) -> Finished:
        """Plans the run of these settings, as the graph's first task does."""
        command = ["python", "-c", PLAN, yaml.safe_dump(dict(settings))]
        return self._well(self._make("plan", pod_spec(self._images["base"], command, run=self._run)))

    def start_stage(self, image: str, stage: str, name: str, record: str, inputs: Sequence[str] = ()) -> str:
        """Makes a Job that does a stage's work on a subset or model, as its task does; returns the Job's name.

        Args:
            inputs: URIs of the manifests that go in; a stage without any works on the subset `name`.
        """
        command = ["python", "-c", STAGE, stage, record, "" if inputs else name, *inputs]
        pod = pod_spec(self._images[image], command, launches=stage == "train", run=self._run)
        return self._make(f"{stage}-{re.sub('[^a-z0-9]+', '-', name)}", pod)

    def run_stage(self, image: str, stage: str, name: str, record: str, inputs: Sequence[str] = ()) -> Finished:
        """Makes a Job as `start_stage` does and waits for its good end."""
        return self._well(self.start_stage(image, stage, name, record, inputs))

    def _make(self, name: str, pod: Object) -> str:
        full_name = f"{self._run}-{name}"
        self._batch.create_namespaced_job(
            self._namespace,
            {
                "metadata": {"name": full_name},
                "spec": {"backoffLimit": 0, "ttlSecondsAfterFinished": 3600, "template": {"spec": pod}},
            },
        )
        self._made.append(full_name)
        return full_name

    def _well(self, name: str) -> Finished:
        finished = self.wait(name)
        assert finished.succeeded, f"{finished.name} failed:\n{finished.log}"
        return finished

    def wait(self, name: str, seconds: float = 600) -> Finished:
        limit = time.monotonic() + seconds
        while True:
            job = self._batch.read_namespaced_job(name, self._namespace)
            if job.status.succeeded or job.status.failed:
                break
            assert time.monotonic() < limit, f"{name} has not ended within {seconds} s:\n{self.log(name)}"
            time.sleep(0.3)
        created = job.metadata.creation_timestamp
        first, last = self._line_times(name)
        end = job.status.completion_time or last
        return Finished(
            name,
            bool(job.status.succeeded),
            self.log(name),
            (first - created).total_seconds(),
            (end - created).total_seconds(),
        )

    def log(self, name: str) -> str:
        pods = self._pods(name)
        if not pods or pods[0].status.phase == "Pending":
            return ""
        text: str = self._core.read_namespaced_pod_log(pods[0].metadata.name, self._namespace)
        return text

    def remove(self) -> None:
        for name in self._made:
            self._batch.delete_namespaced_job(name, self._namespace, propagation_policy="Background")

    def _pods(self, name: str) -> list[Any]:
        pods: list[Any] = self._core.list_namespaced_pod(self._namespace, label_selector=f"job-name={name}").items
        return pods

    def _line_times(self, name: str) -> tuple[datetime, datetime]:
        pod = self._pods(name)[0].metadata.name
        lines = self._core.read_namespaced_pod_log(pod, self._namespace, timestamps=True).splitlines()
        assert lines, f"{name} printed nothing"
        first, last = (datetime.fromisoformat(line.partition(" ")[0]) for line in (lines[0], lines[-1]))
        return first, last
