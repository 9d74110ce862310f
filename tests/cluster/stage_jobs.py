"""Commands of `cosyflow` as Kubernetes Jobs: an image, its command line and nothing that a pipeline's pods lack."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubernetes import client

MLFLOW_HERE = os.environ.get("COSYFLOW_TEST_MLFLOW", "http://127.0.0.1:30050")
"""MLflow as this machine reaches it."""
ACCOUNT = "pipeline-runner"
ENDPOINTS = "cosyflow"
"""ConfigMap of k8s/base with the addresses of the store and of MLflow."""
SECRET = "mlpipeline-minio-artifact"  # noqa: S105 - a name
SECRET_KEYS = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"}
CONTAINER = "main"
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


def pod_spec(image: str, command: Sequence[str], calls_api: bool = False, cpu: str = "100m") -> Object:
    """A pod that `restricted` Pod Security admits, with a read-only root file system and credentials by reference."""
    secret = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": SECRET, "key": key}}} for name, key in SECRET_KEYS.items()
    ]
    return {
        "restartPolicy": "Never",
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": calls_api,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": CONTAINER,
                "image": image,
                "command": ["cosyflow", *command],
                "envFrom": [{"configMapRef": {"name": ENDPOINTS}}],
                "env": [*secret, {"name": "OMP_NUM_THREADS", "value": "1"}],
                "resources": {"requests": {"cpu": cpu, "memory": "256Mi"}, "limits": {"memory": "3Gi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - a volume
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }


class StageJobs:
    """Makes Jobs in a namespace and waits for them; `remove` takes away all that were made."""

    def __init__(self, api: client.ApiClient, namespace: str, images: Mapping[str, str], run: str) -> None:
        self._batch, self._core = client.BatchV1Api(api), client.CoreV1Api(api)
        self._namespace, self._images, self._run = namespace, images, run
        self._made: list[str] = []

    def start(self, image: str, name: str, *command: str, calls_api: bool = False, cpu: str = "100m") -> str:
        """Makes a Job that runs `cosyflow COMMAND` in one of the images; returns its name."""
        full_name = f"{self._run}-{name}"
        template = {"spec": pod_spec(self._images[image], command, calls_api, cpu)}
        self._batch.create_namespaced_job(
            self._namespace,
            {
                "metadata": {"name": full_name},
                "spec": {"backoffLimit": 0, "ttlSecondsAfterFinished": 3600, "template": template},
            },
        )
        self._made.append(full_name)
        return full_name

    def run(self, image: str, name: str, *command: str, calls_api: bool = False, cpu: str = "100m") -> Finished:
        """Makes a Job as `start` does and waits for its good end."""
        finished = self.wait(self.start(image, name, *command, calls_api=calls_api, cpu=cpu))
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
