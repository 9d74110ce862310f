"""A signal while an extension module loads is raised when it is loaded, and the process can still be ended at once."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.unit.packages import CHECKOUT

PROGRAM = """
import signal, time
from importlib.machinery import ExtensionFileLoader
from cosyflow.beginning import listen
from cosyflow.interruption import Raising


class Extension(ExtensionFileLoader):
    def exec_module(self, module):  # as one whose initialisation calls Python
        print("loading", flush=True)
        end = time.monotonic() + {seconds}
        try:
            while time.monotonic() < end:
                time.sleep(0.01)
        except KeyboardInterrupt:
            print("raised within", flush=True)
            raise
        print("loaded", flush=True)


listen()
signal.signal({number}, Raising(KeyboardInterrupt))
try:
    Extension("slow", "slow.so").exec_module(None)
    time.sleep(60)
except KeyboardInterrupt:
    print("raised", flush=True)
"""


def begin(number: int, seconds: float) -> subprocess.Popen[str]:
    """A process that loads a module for so many seconds."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(number=number, seconds=seconds)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    return process


@pytest.mark.medium
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_the_module_is_loaded(number: int) -> None:
    process = begin(int(number), seconds=1)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert out.splitlines() == ["loaded", "raised"]
    assert process.returncode == 0


@pytest.mark.medium
def test_a_second_ctrl_c_does_not_wait() -> None:
    process = begin(int(signal.SIGINT), seconds=60)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(0.3)
        except subprocess.TimeoutExpired:
            continue
    out, told = process.communicate(timeout=60)
    assert (out, process.returncode) == ("", 130)
    assert told == "interrupted; the same command begins again\n"
