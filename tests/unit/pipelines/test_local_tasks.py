"""Tasks of the local runner: which lines reach the terminal, and what is kept of a failure."""

from __future__ import annotations

import io
import json
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.local_tasks import LocalTasks


def run_task(source: str, subset: str = "dev") -> tuple[int, LocalTasks, str, str]:
    """Runs Python source as a task named speech-token. Returns status, tasks, log and what the terminal showed."""
    log, terminal = io.StringIO(), io.StringIO()
    tasks = LocalTasks(log, terminal)
    executor_input = json.dumps({"inputs": {"parameterValues": {"subset": subset}}})
    command = [sys.executable, "-c", source, "--executor_input", executor_input]
    status = tasks([*command, "--function_to_execute", "speech_token"], {"COSYFLOW_STAGE": "4/10"})
    return status, tasks, log.getvalue(), terminal.getvalue()


def test_only_a_stages_own_lines_reach_the_terminal() -> None:
    source = "from cosyflow.progress import say\nprint('chatter')\nsay('speech-token dev', '1/2 utterances')"
    status, tasks, log, terminal = run_task(source)
    assert status == 0
    assert tasks.failures == []
    assert terminal == "[stage 4/10 speech-token dev] 1/2 utterances\n"
    assert log == "speech-token | chatter\nspeech-token | [stage 4/10 speech-token dev] 1/2 utterances\n"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("from cosyflow.errors import CosyFlowError\nraise CosyFlowError('a.wav: empty')", "a.wav: empty"),
        ("raise KeyError('x')", "KeyError: 'x'"),
        ("try:\n 1/0\nexcept ZeroDivisionError:\n raise OSError('last')", "OSError: last"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
        ("raise SystemExit(3)", "exit status 3"),
    ],
)
def test_a_failure_is_told_in_one_line(source: str, error: str) -> None:
    status, tasks, _, terminal = run_task(source, subset="train-a")
    assert status != 0
    assert [str(failure) for failure in tasks.failures] == [f"speech-token train-a: {error}"]
    assert terminal == ""


def test_stop_ends_what_runs_with_its_children_and_lets_nothing_begin(tmp_path: Path) -> None:
    log, mark = io.StringIO(), tmp_path / "mark"
    tasks = LocalTasks(log, io.StringIO())
    task = ["--executor_input", "{}", "--function_to_execute", "train"]
    child = f"import time; open({str(mark)!r}, 'w').close(); time.sleep(60)"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(tasks, ["sh", "-c", f'{sys.executable} -c "$1"; true', "sh", child, *task])
        while not mark.exists():
            time.sleep(0.05)
        tasks.stop(signal.SIGTERM)
        assert running.result(timeout=20) == -signal.SIGTERM
    assert tasks([sys.executable, "-c", "raise AssertionError", *task]) != 0
    assert (tasks.failures, log.getvalue()) == ([], "")
