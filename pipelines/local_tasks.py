"""Runs the tasks of KFP's local runner: their output goes to a log, a stage's own lines to the terminal as well."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import TextIO

from cosyflow.redaction import redact

STAGE_LINE = re.compile(r"^\[stage \d+/\d+ [^\]]+\] ")


class LocalTasks:
    """Stands in for `kfp.local.subprocess_task_handler.run_local_subprocess`, which prints all to one stream.

    KFP runs up to two tasks at a time, each in a thread of its own; their lines carry the task's name in the log.

    Args:
        log: gets every line of every task.
        terminal: gets the stages' own lines.
        environment: variables that the tasks have in addition to ours and KFP's, which they override.

    Attributes:
        failed: names of the tasks that ended badly, with how their processes ended.
    """

    def __init__(self, log: TextIO, terminal: TextIO, environment: Mapping[str, str] | None = None) -> None:
        self._log = log
        self._terminal = terminal
        self._environment = environment or {}
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stop_signal = 0
        self.failed: dict[str, str] = {}

    def __call__(self, full_command: list[str], env_vars: Mapping[str, str] | None = None) -> int:
        """Runs one task to its end. Returns its exit status; after `stop` nothing is run any more."""
        task = _argument(full_command, "--function_to_execute").replace("_", "-")
        process = self._start(full_command, {**os.environ, **(env_vars or {}), **self._environment})
        if process is None:
            return self._stop_signal
        with process:
            for line in process.stdout or ():
                self._write(task, redact(line.rstrip("\n")))
            status = process.wait()
        with self._lock:
            self._running.discard(process)
            if status and not self._stop_signal:
                self.failed[task] = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
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
