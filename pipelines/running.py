"""Runs the pipeline on this machine with KFP's local runner: the same graph and components as on a cluster."""

from __future__ import annotations

import builtins
import contextlib
import copy
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from kfp import local
from kfp.dsl.base_component import BaseComponent
from kfp.local import subprocess_task_handler

from cosyflow.errors import CosyFlowError
from cosyflow.progress import format_seconds
from pipelines.cosyvoice import cosyvoice
from pipelines.local_tasks import LocalTasks
from pipelines.summary import summarize

LOG = "run.log"
SUMMARY = "summary.txt"


def run(arguments: Mapping[str, Any], run_dir: Path, terminal: TextIO = sys.stdout) -> int:
    """Runs the pipeline, and tells on the terminal how far it is and how it ended.

    Args:
        arguments: parameters of the pipeline by name.
        run_dir: folder for the log, the summary and KFP's artifacts.

    Returns:
        0, or 1 when a stage failed.

    Raises:
        CosyFlowError: KFP could not run the pipeline at all.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    log_path = run_dir / LOG
    start = time.monotonic()
    terminal.write(f"Full output: {log_path}\n")
    with log_path.open("a", encoding="utf-8") as log:
        tasks = LocalTasks(log, terminal, _bytecode_cache(run_dir.parent / "bytecode"))
        try:
            _execute(arguments, run_dir / "kfp", tasks, log)
        except RuntimeError as error:  # KFP's way to say that a task failed
            if not tasks.failures:
                raise CosyFlowError(f"KFP could not run the pipeline: {error}; see {log_path}") from error
    seconds = time.monotonic() - start
    if tasks.failures:
        for failure in tasks.failures:
            terminal.write(f"FAILED after {format_seconds(seconds)}: stage {failure}\n")
        terminal.write(f"Full output: {log_path}\n")
        return 1
    summary = summarize(tasks.manifests, seconds, arguments, log_path)
    (run_dir / SUMMARY).write_text(summary, encoding="utf-8")
    terminal.write(summary)
    return 0


def new_run_dir(directory: Path) -> Path:
    """A folder that is named after the time."""
    return directory / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")


def _bytecode_cache(folder: Path) -> dict[str, str]:
    """Variables that let the tasks, dozens of Python processes, keep compiled modules where the environment forbids it.

    Where PYTHONDONTWRITEBYTECODE is set, each task would spend seconds of compiling PyTorch's modules anew.
    """
    if not os.environ.get("PYTHONDONTWRITEBYTECODE"):
        return {}
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder.absolute())}


def _execute(arguments: Mapping[str, Any], pipeline_root: Path, tasks: LocalTasks, log: TextIO) -> None:
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(pipeline_root), raise_on_error=True)
    with _chatter_to(log), _tasks_run_by(tasks), _stopped_by_signals(tasks):
        _tried_once(cosyvoice)(**arguments)


def _tried_once(pipeline: BaseComponent) -> BaseComponent:
    """A copy whose tasks are not started again when they fail: here somebody waits, and the same would happen again."""
    copied = copy.deepcopy(pipeline)
    for component in copied.pipeline_spec.components.values():
        for task in component.dag.tasks.values():
            task.ClearField("retry_policy")
    return copied


@contextlib.contextmanager
def _tasks_run_by(tasks: LocalTasks) -> Iterator[None]:
    """KFP's local runner has no hook for the output of a task; the function that starts one is replaced instead."""
    original = subprocess_task_handler.run_local_subprocess
    subprocess_task_handler.run_local_subprocess = tasks
    try:
        yield
    finally:
        subprocess_task_handler.run_local_subprocess = original


@contextlib.contextmanager
def _stopped_by_signals(tasks: LocalTasks) -> Iterator[None]:
    """Ends the tasks with us: after Ctrl-C KFP would begin the next ones, and SIGTERM would leave the training behind.

    A trainer saves a checkpoint when it is asked to end; the second signal ends it at once.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        tasks.stop(signal.SIGTERM)
        for again in handlers:
            signal.signal(again, kill)
        raise KeyboardInterrupt

    def kill(number: int, frame: FrameType | None) -> None:
        tasks.stop(signal.SIGKILL)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _chatter_to(log: TextIO) -> Iterator[None]:
    """Sends what KFP itself prints to the log, and undoes what its parallel tasks do to `print` and the root logger."""
    original_print, root = builtins.print, logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=RuntimeWarning, module=subprocess_task_handler.__name__)
            yield
    finally:
        builtins.print = original_print
        root.setLevel(level)
        root.handlers[:] = handlers
