"""A signal during an import is raised when the import has ended, and the process can still be ended at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.packages import CHECKOUT

SLOW = """
import os, signal, time
print("importing", flush=True)
end = time.monotonic() + {seconds}
try:
    while time.monotonic() < end:
        time.sleep(0.01)
except BaseException as error:
    print("raised within the import", flush=True)
    raise
print("imported", flush=True)
"""
PROGRAM = """
import signal, sys, time
from cosyflow.beginning import listen
from cosyflow.interruption import Raising

listen()
signal.signal({number}, Raising(KeyboardInterrupt))
try:
    import slow
    time.sleep(60)
except KeyboardInterrupt:
    print("raised", flush=True)
"""


def begin(folder: Path, number: int, seconds: float) -> subprocess.Popen[str]:
    """A process that is within an import of so many seconds."""
    (folder / "slow.py").write_text(SLOW.format(seconds=seconds))
    (folder / "program.py").write_text(PROGRAM.format(number=number))
    process = subprocess.Popen(
        [sys.executable, str(folder / "program.py")],
        env={"PYTHONPATH": f"{CHECKOUT}:{folder}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    return process


@pytest.mark.medium
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_end_of_the_import(number: int, tmp_path: Path) -> None:
    process = begin(tmp_path, int(number), seconds=1)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert out.splitlines() == ["imported", "raised"]
    assert process.returncode == 0


@pytest.mark.medium
def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    process = begin(tmp_path, int(signal.SIGINT), seconds=60)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(0.3)
        except subprocess.TimeoutExpired:
            continue
    out, told = process.communicate(timeout=60)
    assert (out, process.returncode) == ("", 130)
    assert told == "interrupted; the same command begins again\n"
