"""Tasks of the local runner: which lines reach the terminal, and what is kept of a failure."""

from __future__ import annotations

import io
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.local_tasks import LocalTasks


def run_task(source: str, environment: dict[str, str] | None = None) -> tuple[int, LocalTasks, str, str]:
    """Runs Python source as a task named speech-token. Returns status, tasks, log and what the terminal showed."""
    log, terminal = io.StringIO(), io.StringIO()
    tasks = LocalTasks(log, terminal, environment)
    command = [sys.executable, "-c", source, "--function_to_execute", "speech_token"]
    status = tasks(command, {"COSYFLOW_STAGE": "4/10", "COSYFLOW_RUN_ID": "of KFP"})
    return status, tasks, log.getvalue(), terminal.getvalue()


def test_only_a_stages_own_lines_reach_the_terminal() -> None:
    source = "from cosyflow.progress import say\nprint('chatter')\nsay('speech-token dev', '1/2 utterances')"
    status, tasks, log, terminal = run_task(source)
    assert status == 0
    assert tasks.failed == {}
    assert terminal == "[stage 4/10 speech-token dev] 1/2 utterances\n"
    assert log == "speech-token | chatter\nspeech-token | [stage 4/10 speech-token dev] 1/2 utterances\n"


def test_a_task_knows_its_run_and_all_that_kfp_tells_it() -> None:
    source = "import os\nprint(os.environ['COSYFLOW_RUN_ID'], os.environ['COSYFLOW_STAGE'])"
    _, _, log, _ = run_task(source, {"COSYFLOW_RUN_ID": "of ours"})
    assert log == "speech-token | of ours 4/10\n"


@pytest.mark.parametrize(
    ("source", "ended"),
    [
        ("raise KeyError('x')", "exit status 1"),
        ("raise SystemExit(3)", "exit status 3"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "killed by signal 9"),
    ],
)
def test_a_task_that_ends_badly_is_kept_with_how_it_ended(source: str, ended: str) -> None:
    """Why, tells the end that the task itself has left, or else its output, which is in the log alone."""
    status, tasks, _, terminal = run_task(source)
    assert status != 0
    assert tasks.failed == {"speech-token": ended}
    assert terminal == ""


def test_stop_ends_what_runs_with_its_children_and_lets_nothing_begin(tmp_path: Path) -> None:
    log, mark = io.StringIO(), tmp_path / "mark"
    tasks = LocalTasks(log, io.StringIO())
    task = ["--function_to_execute", "train"]
    child = f"import time; open({str(mark)!r}, 'w').close(); time.sleep(60)"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(tasks, ["sh", "-c", f'{sys.executable} -c "$1"; true', "sh", child, *task])
        while not mark.exists():
            time.sleep(0.05)
        tasks.stop(signal.SIGTERM)
        assert running.result(timeout=120) == -signal.SIGTERM
    assert tasks([sys.executable, "-c", "raise AssertionError", *task]) != 0
    assert (tasks.failed, log.getvalue()) == ({}, "")
