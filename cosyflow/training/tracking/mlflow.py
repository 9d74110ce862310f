"""Metrics for MLflow, sent by a thread, so that neither a slow nor a dead server holds up the training.

What could not be sent lies in a JSONL file and is sent when the server is back: later in this run, or by the run that
goes on from it. A run whose id is in MLFLOW_RUN_ID belongs to somebody else (Kubeflow Pipelines): metrics go into it,
and it is not ended here.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cosyflow import storage
from cosyflow.mlflow_server import connect
from cosyflow.progress import say
from cosyflow.redaction import redact

RUN_ID_VARIABLE = "MLFLOW_RUN_ID"
RUN_FILE = "mlflow_run.json"
SPOOL_FILE = "mlflow_unsent.jsonl"
LARGEST_BATCH = 500
SEND_INTERVAL_SECONDS = 2.0
RETRY_INTERVAL_SECONDS = 30.0
LONGEST_GOODBYE_SECONDS = 60.0


@dataclass(frozen=True)
class MlflowRun:
    """Which run the metrics belong to.

    Attributes:
        uri: tracking server, or `sqlite:///...`.
        experiment: name; it is made when it is not there.
        name: of a run that is made here.
        params: settings by dotted name.
        tags: what it is of.
    """

    uri: str
    experiment: str
    name: str
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


class Mlflow:
    """Sends metrics to MLflow.

    Args:
        run: the run to log into.
        directory: where the run's id lies, by which a resumed training goes on in the same run, and unsent metrics.
    """

    def __init__(self, run: MlflowRun, directory: str) -> None:
        import mlflow  # noqa: F401 - before data loading forks: a fork during the thread's import would hang

        self._connection = _Connection(run, storage.join(directory, RUN_FILE))
        self._spool = storage.join(directory, SPOOL_FILE)
        self._unsent: list[dict[str, Any]] = _read_spool(self._spool)
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._finished = False
        self._warned = False
        self._retry_at = 0.0
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def write(self, update: int, values: Mapping[str, float]) -> None:
        self._queue.put({"update": update, "time": time.time(), "values": dict(values)})

    def close(self, finished: bool) -> None:
        """Waits LONGEST_GOODBYE_SECONDS at most; what is unsent by then stays in the file."""
        self._finished = finished
        self._queue.put(None)
        self._thread.join(LONGEST_GOODBYE_SECONDS)

    def _work(self) -> None:
        closing = False
        while not closing:
            closing = self._collect()
            if self._unsent and (closing or time.monotonic() >= self._retry_at):
                self._send()
        if self._unsent or not self._connection.run_id:
            return  # the server is unreachable; the run that goes on from this one ends it
        try:
            self._connection.end(self._finished)
        except Exception as error:
            self._warn(error)

    def _collect(self) -> bool:
        """Moves what was written to the unsent entries, waiting a little for more. True when there will be no more."""
        deadline = time.monotonic() + SEND_INTERVAL_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            try:
                entry = self._queue.get(timeout=left)
            except queue.Empty:
                break
            if entry is None:
                return True
            self._unsent.append(entry)
        return False

    def _send(self) -> None:
        try:
            self._connection.log(self._unsent)
        except Exception as error:
            self._retry_at = time.monotonic() + RETRY_INTERVAL_SECONDS
            storage.write_text(self._spool, "".join(json.dumps(entry) + "\n" for entry in self._unsent))
            self._warn(error)
        else:
            self._unsent = []
            storage.remove(self._spool)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            reason = redact(" ".join(str(error).split()))[:200]
            say("train", f"warning: MLflow does not take metrics ({reason}); they wait in {self._spool}")


class _Connection:
    """The MLflow client and the run, both made when they are first needed."""

    def __init__(self, run: MlflowRun, run_file: str) -> None:
        self.run_id = ""
        self._run = run
        self._run_file = run_file
        self._client: Any = None
        self._is_ours = RUN_ID_VARIABLE not in os.environ

    def log(self, entries: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        self._open()
        metrics = [
            Metric(name, value, int(entry["time"] * 1000), entry["update"])
            for entry in entries
            for name, value in entry["values"].items()
        ]
        for start in range(0, len(metrics), LARGEST_BATCH):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + LARGEST_BATCH])

    def end(self, finished: bool) -> None:
        """Ends a run that was made here."""
        if self._is_ours:
            self._client.set_terminated(self.run_id, "FINISHED" if finished else "KILLED")

    def _open(self) -> None:
        if self.run_id:
            return
        # a dead server is noticed after seconds, not after MLflow's own minutes of retries
        self._client = connect(self._run.uri, MAX_RETRIES=1, TIMEOUT=10)
        run_id = os.environ.get(RUN_ID_VARIABLE) or self._run_of_before() or self._make_run()
        if not self._client.get_run(run_id).data.params:
            self._log_settings(run_id)
        self.run_id = run_id

    def _run_of_before(self) -> str:
        """The id of the run that an interrupted training logged into, set running again; "" when there is none."""
        if not storage.exists(self._run_file):
            return ""
        noted = storage.read_json(self._run_file)
        if noted["uri"] != self._run.uri:
            return ""
        run_id: str = noted["run_id"]
        self._client.update_run(run_id, status="RUNNING")
        return run_id

    def _make_run(self) -> str:
        experiment = self._client.get_experiment_by_name(self._run.experiment)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(self._run.experiment)
        made = self._client.create_run(experiment_id, run_name=self._run.name, tags=dict(self._run.tags))
        run_id: str = made.info.run_id
        storage.write_json(self._run_file, {"uri": self._run.uri, "run_id": run_id})
        return run_id

    def _log_settings(self, run_id: str) -> None:
        from mlflow.entities import Param, RunTag

        params = [Param(name, value) for name, value in self._run.params.items()]
        tags = [RunTag(name, value) for name, value in self._run.tags.items()]
        self._client.log_batch(run_id, params=params, tags=tags)


def noted_run(directory: str, uri: str) -> str | None:
    """The id of the run that a training in a folder logs into; None when there is none at this address."""
    if not uri:
        return None
    if RUN_ID_VARIABLE in os.environ:
        return os.environ[RUN_ID_VARIABLE]
    run_file = storage.join(directory, RUN_FILE)
    noted = storage.read_json(run_file) if storage.exists(run_file) else {}
    return str(noted["run_id"]) if noted.get("uri") == uri else None


def _read_spool(uri: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in storage.read_text(uri).splitlines()] if storage.exists(uri) else []
