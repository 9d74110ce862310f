"""A Kubeflow Pipelines server as the tests use it: the command `kfp`, the SDK, and what runs leave in the store."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosyflow import storage
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest
from pipelines.stage_task import STAGE_LABEL

EXPERIMENT = "cosyflow-test"
PIPELINE = "cosyvoice"
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
POLL_SECONDS = 2
RETRY_SECONDS = 60
MAIN_CONTAINER = "main"
REPORT = "report"
DRIVER = "driver"
"""What the names have in them of the server's own pods, which prepare a task."""
EXECUTOR = "executor"
"""What the server calls the part of a task that runs its code; its attempts are `executor(0)` and so on."""


@dataclass(frozen=True)
class Task:
    """One task of a run, by the name that the UI shows; of a task in a loop there is one for each item."""

    name: str
    state: str
    seconds: float


@dataclass(frozen=True)
class Server:
    """The server at `host`.

    Attributes:
        root: where its runs keep artifacts, as it writes that: "minio://bucket/prefix".
        runs: ids of the runs that were started.
    """

    host: str
    namespace: str
    root: str
    client: Any
    core: Any
    runs: list[str] = field(default_factory=list)

    def submit(self, package: Path, name: str, run: str, **parameters: object) -> str:
        """Starts a run with `kfp run submit`. Returns its id.

        Args:
            run: YAML of a run, or the address of a file of it.
            parameters: flat ones.
        """
        values = [
            f"{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in {"run": run, **parameters}.items()
        ]
        command = [str(Path(sys.executable).with_name("kfp")), "--endpoint", self.host, "--namespace", self.namespace]
        command += ["run", "submit", "-e", EXPERIMENT, "-r", name, "-f", str(package), *values]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        link = re.search(r"/runs/details/([\w-]+)", done.stdout)
        assert link, done.stdout + done.stderr
        self.runs.append(link[1])
        return link[1]

    def wait(self, run: str, seconds: float) -> str:
        """The state in which a run ends."""
        limit = time.monotonic() + seconds
        while (state := self.client.get_run(run).state) not in ENDED:
            assert time.monotonic() < limit, f"run {run} is {state} after {seconds:.0f} s: {self.tasks(run)}"
            time.sleep(POLL_SECONDS)
        return str(state)

    def tasks(self, run: str) -> list[Task]:
        """The tasks that the server shows of a run, without the drivers that prepare them."""
        details = self.client.get_run(run).run_details
        found = []
        for task in details.task_details or [] if details else []:
            ended = task.end_time if task.end_time and task.end_time > task.create_time else task.create_time
            seconds = (ended - (task.start_time or ended)).total_seconds()
            name = task.display_name or ""  # of what the server learns of late
            if name and not name.endswith(DRIVER) and not name.startswith(EXECUTOR):
                found.append(Task(name, str(task.state), seconds))
        return found

    def states(self, run: str, names: Sequence[str]) -> dict[str, list[str]]:
        """How the tasks of some names ended, as Argo has it.

        The list that KFP 2.17 itself gives may stay for ever at what a busy server knew shortly before the end.
        """
        found = [(node["displayName"], node["phase"].upper()) for node in self._nodes(run)]
        return {name: [state for other, state in found if other == name] for name in names}

    def _nodes(self, run: str) -> list[dict[str, Any]]:
        from kubernetes import client

        kind = {"group": "argoproj.io", "version": "v1alpha1", "plural": "workflows"}
        workflows = client.CustomObjectsApi(self.core.api_client)
        wanted = {"namespace": self.namespace, "label_selector": f"pipeline/runid={run}"}
        (workflow,) = workflows.list_namespaced_custom_object(**kind, **wanted)["items"]
        status = workflow["status"]
        packed = status.get("compressedNodes")  # of large ones
        nodes = json.loads(gzip.decompress(b64decode(packed))) if packed else status["nodes"]
        return list(nodes.values())

    def executions(self, run: str) -> Counter[str]:
        """How many tasks ran their code (SUCCEEDED), and for how many the server's cache answered (SKIPPED)."""
        details = self.client.get_run(run).run_details.task_details
        return Counter(str(task.state) for task in details if task.display_name == EXECUTOR)

    def seconds(self, run: str) -> float:
        """From a run's start to its end."""
        ended = self.client.get_run(run)
        return float((ended.finished_at - ended.created_at).total_seconds())

    def artifacts(self, run: str, name: str) -> list[str]:
        """The s3:// URIs of a run's artifacts of a name."""
        place = storage.join(f"s3://{self.root.partition('://')[2]}", PIPELINE, run)
        return [storage.join(place, file.path) for file in storage.list_files(place) if file.path.endswith(f"/{name}")]

    def own_name(self, uri: str) -> str:
        """An artifact's s3:// URI as the server has it."""
        return f"{self.root.partition('://')[0]}://{uri.partition('://')[2]}"

    def manifests(self, run: str) -> list[Manifest]:
        """What the tasks of a run's stages handed on; of those that the server's cache answered there is nothing."""
        return [Manifest.read(uri) for stage in STAGES.values() for uri in self.artifacts(run, stage.makes)]

    def report(self, run: str) -> str:
        """The page that a run ends with."""
        (page,) = self.artifacts(run, REPORT)
        return storage.read_text(page)

    def logs(self, run: str) -> dict[str, str]:
        """What each pod of a run has printed, by the pod's name; drivers and launchers of tasks alike."""
        return {
            pod.metadata.name: self.core.read_namespaced_pod_log(
                pod.metadata.name, self.namespace, container=MAIN_CONTAINER
            )
            for pod in self.pods(run)
            if pod.status.phase in ("Running", "Succeeded", "Failed")
        }

    def log_of(self, run: str, stage: str) -> str:
        """What the pods of a run's stage have printed."""
        logs = self.logs(run)
        return "\n".join(logs[pod.metadata.name] for pod in self.pods(run, stage) if pod.metadata.name in logs)

    def retry(self, run: str) -> None:
        """Starts the failed tasks of a run again, as the button Retry does."""
        self.client._run_api.run_service_retry_run(run)
        limit = time.monotonic() + RETRY_SECONDS
        while self.client.get_run(run).state in ENDED:
            assert time.monotonic() < limit, f"run {run} does not start again"
            time.sleep(1)

    def delete(self, run: str) -> None:
        """Removes a run with its pods and jobs."""
        self.client.delete_run(run)
        self.runs.remove(run)

    def running_pods(self, run: str) -> list[str]:
        return [pod.metadata.name for pod in self.pods(run) if pod.status.phase == "Running"]

    def execute(self, pod: str, *command: str) -> None:
        """Runs a command in a task's pod."""
        where = ["--namespace", self.namespace, pod, "--container", MAIN_CONTAINER]
        subprocess.run(["kubectl", "exec", *where, "--", *command], check=True)

    def pods(self, run: str, stage: str = "") -> list[Any]:
        """The pods of a run, or those that did a stage's work in it."""
        selector = f"pipeline/runid={run}" + (f",{STAGE_LABEL}={stage}" if stage else "")
        pods: list[Any] = self.core.list_namespaced_pod(self.namespace, label_selector=selector).items
        return pods
