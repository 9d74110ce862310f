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
from typing import TYPE_CHECKING, Any, TextIO

from cosyflow import storage
from cosyflow.cli.ending import Terminated
from cosyflow.errors import CosyFlowError
from cosyflow.progress import format_seconds
from cosyflow.redaction import guarded
from cosyflow.run.config import Run
from cosyflow.run.ends import End, local_run_id, read_ends
from cosyflow.run.execute import IMAGE_VARIABLE, RUN_VARIABLE
from cosyflow.run.plan import leave, plan
from cosyflow.run.report import page, summary
from pipelines.local_tasks import LocalTasks
from pipelines.summary import summarize

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

LOG = "run.log"
REPORT = "report.md"
SUMMARY = "summary.txt"
SUMMARY_JSON = "summary.json"


def run(settings: Mapping[str, Any], run_dir: Path, terminal: TextIO = sys.stdout) -> int:
    """Runs the pipeline, and shows on the terminal how far it is and how it ended.

    Args:
        settings: of the run, by name.
        run_dir: folder for the log, the report, the summary (also as `summary.json`) and KFP's artifacts.

    Returns:
        0, or 1 when a stage failed.

    Raises:
        RefusalError: the run cannot work.
        CosyFlowError: KFP could not run the pipeline at all.
    """
    start = time.monotonic()
    run_dir = run_dir.absolute()
    planned = plan(settings)
    wanted = planned.record.run
    run_id = local_run_id()
    leave(planned, run_id)
    for warning in planned.warnings:
        terminal.write(f"warning: {warning}\n")
    run_dir.mkdir(parents=True, exist_ok=True)
    log_path = run_dir / LOG
    terminal.write(f"Full output: {log_path}\n")
    failed: Mapping[str, str] = {}
    if planned.unfinished:
        failed = _run_graph(wanted, run_dir, run_id, terminal)
    else:
        storage.write_text(str(log_path), "All is done already: nothing to do.\n")
    ends, _ = read_ends(wanted.data_root, run_id)
    failures = [end for end in ends if end.state == "failed"]
    failures += [End(task, "", "failed", error=error) for task, error in failed.items() if not failures]
    state = "FAILED" if failures else "SUCCEEDED"
    report = run_dir / REPORT
    storage.write_text(str(report), page(wanted.data_root, run_id, state))
    storage.write_json(str(run_dir / SUMMARY_JSON), summary(ends, str(report)))
    seconds = time.monotonic() - start
    if failures:
        for end in failures:
            task = f"{end.stage} {end.name}".strip()
            terminal.write(f"FAILED after {format_seconds(seconds)}: stage {task}: {end.error}\n")
        terminal.write(f"Full output: {log_path}\n")
        return 1
    text = summarize(ends, seconds, planned.record, log_path)
    storage.write_text(str(run_dir / SUMMARY), text)
    terminal.write(text)
    return 0


def _run_graph(wanted: Run, run_dir: Path, run_id: str, terminal: TextIO) -> Mapping[str, str]:
    """Lets KFP's local runner run the graph. Returns the tasks that ended badly, with how their processes ended."""
    from kfp import local

    from pipelines.cosyvoice import build_pipeline

    environment = {**_bytecode_cache(run_dir.parent / "bytecode"), RUN_VARIABLE: run_id, IMAGE_VARIABLE: ""}
    with (run_dir / LOG).open("a", encoding="utf-8") as log:
        tasks = LocalTasks(guarded(log), terminal, environment)
        local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(run_dir / "kfp"), raise_on_error=True)
        try:
            with _chatter_to(guarded(log)), _tasks_run_by(tasks), _stopped_by_signals(tasks):
                _tried_once(build_pipeline(wanted.subsets_at_once))(run=wanted.to_yaml())
        except RuntimeError as error:  # KFP's way to say that a task failed
            if not tasks.failed:
                raise CosyFlowError(f"KFP could not run the pipeline: {error}; see {run_dir / LOG}") from error
    return tasks.failed


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
    from kfp.local import subprocess_task_handler

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
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

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
    from kfp.local import subprocess_task_handler

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
