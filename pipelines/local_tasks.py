"""Runs the tasks of KFP's local runner: their output goes to a log, a stage's own lines to the terminal as well."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from cosyflow.stage import Manifest

STAGE_LINE = re.compile(r"^\[stage \d+/\d+ [^\]]+\] ")
ERROR_LINE = re.compile(r"^(?P<kind>[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit))(?:: (?P<message>.*))?$")
USER_ERROR = "CosyFlowError"


@dataclass(frozen=True)
class Failure:
    """A task that ended badly: its name, the subset or model it worked on, and the error in one line."""

    task: str
    subject: str
    error: str

    def __str__(self) -> str:
        return f"{self.task} {self.subject}".strip() + f": {self.error}"


class LocalTasks:
    """Stands in for `kfp.local.subprocess_task_handler.run_local_subprocess`, which prints all to one stream.

    KFP runs up to two tasks at a time, each in a thread of its own; their lines are told apart in the log by task.

    Args:
        log: gets every line of every task.
        terminal: gets the stages' own lines.
        environment: variables that the tasks have beside ours.
    """

    def __init__(self, log: TextIO, terminal: TextIO, environment: Mapping[str, str] | None = None) -> None:
        self._log = log
        self._terminal = terminal
        self._environment = {**os.environ, **(environment or {})}
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stop_signal = 0
        self.manifests: list[Manifest] = []
        self.failures: list[Failure] = []

    def __call__(self, full_command: list[str], env_vars: Mapping[str, str] | None = None) -> int:
        """Runs one task to its end. Returns its exit status; after `stop` nothing is run any more."""
        task = _argument(full_command, "--function_to_execute").replace("_", "-")
        executor_input = json.loads(_argument(full_command, "--executor_input"))
        process = self._start(full_command, {**self._environment, **(env_vars or {})})
        if process is None:
            return self._stop_signal
        error = ""
        with process:
            for line in process.stdout or ():
                self._write(task, line.rstrip("\n"))
                found = ERROR_LINE.match(line.rstrip())
                if found:
                    error = _one_line(found["kind"], found["message"] or "")
            status = process.wait()
        with self._lock:
            self._running.discard(process)
            if status == 0:
                self.manifests += _read_manifests(executor_input)
            elif not self._stop_signal:
                self.failures.append(Failure(task, _subject(executor_input), error or _describe_status(status)))
        return status

    def stop(self, signal_number: int) -> None:
        """Sends a signal to all that runs, and lets nothing more begin."""
        self._stop_signal = signal_number
        for process in list(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal_number)

    def _start(self, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[str] | None:
        """Starts a task in a process group of its own, which `stop` reaches as a whole."""
        with self._lock:
            if self._stop_signal:
                return None
            process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                bufsize=1,
                env=environment,
                start_new_session=True,
            )
            self._running.add(process)
            return process

    def _write(self, task: str, line: str) -> None:
        with self._lock:
            self._log.write(f"{task} | {line}\n")
            self._log.flush()
            if STAGE_LINE.match(line):
                self._terminal.write(line + "\n")
                self._terminal.flush()


def _argument(command: Sequence[str], option: str) -> str:
    return command[command.index(option) + 1]


def _subject(executor_input: Mapping[str, Any]) -> str:
    """The subset that a task was given, or the name of the first manifest."""
    inputs = executor_input.get("inputs", {})
    if "subset" in inputs.get("parameterValues", {}):
        return str(inputs["parameterValues"]["subset"])
    artifacts = [entry["artifacts"] for entry in inputs.get("artifacts", {}).values()]
    return str(artifacts[0][0].get("metadata", {}).get("name", "")) if artifacts and len(artifacts[0]) == 1 else ""


def _one_line(kind: str, message: str) -> str:
    return message if kind.rpartition(".")[2] == USER_ERROR else f"{kind}: {message}"


def _describe_status(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


def _read_manifests(executor_input: Mapping[str, Any]) -> list[Manifest]:
    artifacts = executor_input.get("outputs", {}).get("artifacts", {})
    uris = [artifact["uri"] for artifact in artifacts.get("manifest", {}).get("artifacts", [])]
    return [Manifest.from_json(Path(uri).read_text(encoding="utf-8"), uri) for uri in uris]
