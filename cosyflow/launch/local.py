"""A training command on this machine: torchrun starts its processes, and their first error becomes ours."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from cosyflow.errors import CosyFlowError, Problem, RefusalError, StoppedError
from cosyflow.launch.terminal import Screen
from cosyflow.redaction import redact
from cosyflow.scratch import scratch_folder
from cosyflow.training.member import end_with_parent

TAIL_LINES = 20
STOPPED = re.compile(r"^stopped (?:after|before) .*$", re.MULTILINE)
"""What a process of a training says when it was asked to end (`cosyflow.training.process`)."""
USER_ERROR = "CosyFlowError: "
REFUSAL = "Refusal: "
"""How torch's error file begins a message of ours."""


@dataclass(frozen=True)
class RankError:
    """The error of the process that failed first."""

    rank: int
    message: str
    timestamp: float


def run_locally(module: str, arguments: Sequence[str], num_processes: int, log: Path, on_cpu: bool = False) -> None:
    """Runs `python -m MODULE ARGUMENTS` in several processes that find each other, and waits for their end.

    What they print goes to our standard output, and all of it with torchrun's own messages to the log.

    Args:
        module: what every process runs.
        arguments: its command line.
        num_processes: how many.
        log: file for the whole output; an existing one is added to.
        on_cpu: hides the machine's GPUs from them.

    Raises:
        RefusalError: the processes refused what was asked for.
        StoppedError: the run was asked to stop (SIGTERM) and did so.
        CosyFlowError: a process failed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder() as errors, log.open("a", encoding="utf-8") as log_file:
        begin = log_file.tell()
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
        command += [f"--log-dir={errors}", "-m", module, *arguments]
        process = subprocess.Popen(
            command,
            env=_environment(num_processes, on_cpu),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            preexec_fn=partial(end_with_parent, signal.SIGTERM),
        )
        with _forwarding_sigterm(process) as stopped:
            tail = _stream(process, log_file)
            status = _wait(process)
        if status == 0:
            return
        if stopped.is_set():
            raise StoppedError(_how_it_stopped(log, begin))
        error = _first_error(Path(errors))
        if error is not None and error.message.startswith(REFUSAL):
            raise RefusalError(Problem(**entry) for entry in json.loads(error.message.removeprefix(REFUSAL)))
        raise CosyFlowError(_explain(status, error, tail, log))


def _how_it_stopped(log: Path, begin: int) -> str:
    """What the training itself said of its end; when it was stopped while it started, it had nothing to say or save.

    Args:
        begin: byte of the log where this run's output begins.
    """
    with log.open("rb") as file:
        file.seek(begin)
        said = STOPPED.findall(file.read().decode("utf-8", "replace"))
    return said[-1] if said else "stopped before training began, nothing was saved; the same command begins again"


def _environment(num_processes: int, on_cpu: bool) -> dict[str, str]:
    """Ours, with the cores shared out: PyTorch would take all of them in every process."""
    environment = {"PYTHONUNBUFFERED": "1", **os.environ}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_processes)))
    if on_cpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


@contextmanager
def _forwarding_sigterm(process: subprocess.Popen[str]) -> Iterator[threading.Event]:
    """Forwards SIGTERM to the processes, which then save and end; the event is set when there was one."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may listen
        yield stopped
        return

    def forward(number: int, frame: object) -> None:
        stopped.set()
        process.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, forward)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)


def _stream(process: subprocess.Popen[str], log_file: IO[str]) -> deque[str]:
    """Copies the output until it ends; returns its last lines."""
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    lock = threading.Lock()
    screen = Screen(sys.stdout)

    def copy(source: IO[str], shown: bool) -> None:
        for line in map(redact, source):
            with lock:
                tail.append(line.rstrip("\n"))
                log_file.write(line)
                log_file.flush()
            if shown:
                screen.show(line)

    assert process.stdout is not None and process.stderr is not None  # noqa: S101, PT018 - both are pipes
    messages = threading.Thread(target=copy, args=(process.stderr, False), daemon=True)
    messages.start()
    try:
        copy(process.stdout, True)
    except KeyboardInterrupt:
        copy(process.stdout, True)  # the processes got the interrupt from the terminal too, and save before they end
        raise
    finally:
        messages.join()
        screen.end()
    return tail


def _wait(process: subprocess.Popen[str]) -> int:
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


def _first_error(directory: Path) -> RankError | None:
    """The earliest of the errors that the processes left."""
    errors = []
    for path in directory.rglob("error.json"):
        content = json.loads(path.read_text(encoding="utf-8"))["message"]
        if isinstance(content, dict):
            details = content.get("extraInfo", {})
            errors.append(RankError(int(path.parent.name), content["message"], float(details.get("timestamp", 0))))
        else:
            errors.append(RankError(int(path.parent.name), str(content), 0.0))
    return min(errors, key=lambda error: error.timestamp, default=None)


def _explain(status: int, error: RankError | None, tail: Sequence[str], log: Path) -> str:
    if error is not None and error.message.startswith(USER_ERROR):
        return error.message.removeprefix(USER_ERROR)
    if error is not None:
        return f"training failed on rank {error.rank}: {error.message}; its whole output is in {log}"
    for line in tail:
        sys.stdout.write(f"| {line}\n")
    return (
        f"training ended with status {status} and no process could say why (killed from outside, or out of memory?);"
        f" the whole output is in {log}"
    )
