"""Ctrl-C and `| head` end a program without a traceback, also while it still imports what it needs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.packages import CHECKOUT

DELAYS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6)
"""Seconds after Python, for which nobody here can speak, has come to our code, whose first statement is `listen`."""
BEGINS = """
import runpy, sys
import cosyflow.beginning
listen = cosyflow.beginning.listen
cosyflow.beginning.listen = lambda: (listen(), print("begins", flush=True))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""
PROGRAMS = {
    "cosyflow": ["average", "--src_path", "{fifo}", "--dst_model", "average.pt"],
    "pipelines": ["check", "--run", "{fifo}"],
    "cosyflow.training": ["--config", "{fifo}", "--train_data", "x", "--cv_data", "x", "--model_dir", "{folder}/model"],
}


def start(module: str, words: list[str]) -> subprocess.Popen[str]:
    """Returns when our code has begun."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGINS, module, *words],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores Ctrl-C
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    return process


@pytest.mark.slow
@pytest.mark.parametrize("module", ["cosyflow", "pipelines", "cosyflow.training"])
@pytest.mark.parametrize("delay", DELAYS)
def test_ctrl_c_at_any_moment_is_one_line(module: str, delay: float, tmp_path: Path) -> None:
    """Each reads a pipe to which nobody writes, so that none ends by itself."""
    os.mkfifo(tmp_path / "fifo")
    process = start(module, [word.format(fifo=tmp_path / "fifo", folder=tmp_path) for word in PROGRAMS[module]])
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert told.count("\n") == 1, told
    assert "interrupted; the same command " in told
    assert process.returncode == 130


@pytest.mark.medium
@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_a_reader_that_has_gone_is_no_error(words: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cosyflow", *words], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(60) == 0


@pytest.mark.medium
def test_a_command_whose_reader_has_gone_ends_as_others_do() -> None:
    program = "import sys; from cosyflow.cli.ending import ending; sys.exit(ending('x', lambda: print('y' * 200_000)))"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=-1)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(60) == 128 + signal.SIGPIPE


@pytest.mark.medium
def test_a_command_without_standard_output_works() -> None:
    done = subprocess.run(["sh", "-c", f"{sys.executable} -m cosyflow --help >&-"], cwd=CHECKOUT, capture_output=True)
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
