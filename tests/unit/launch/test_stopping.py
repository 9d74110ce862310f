"""A training that is asked to stop says what it saved, and nothing of a checkpoint when there is none."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from cosyflow.checkpoint.state import Position
from cosyflow.training.loop import Ending
from cosyflow.training.process import how_it_stopped
from tests.unit.packages import CHECKOUT

LAUNCH = """
import sys
from pathlib import Path
from cosyflow.cli.ending import ending
from cosyflow.launch.local import run_locally
print("launches", flush=True)
sys.exit(ending("cosyflow train", lambda: run_locally("tests.unit.launch.failing", ["waits"], 1, Path(sys.argv[1]))))
"""


def test_what_was_computed_is_named() -> None:
    assert "after update 7, which is saved" in how_it_stopped(Ending(Position(update=7), finished=False))
    assert "before the first update, nothing was saved" in how_it_stopped(Ending(Position(), finished=False))


@pytest.mark.medium
def test_a_stop_before_training_begins_promises_no_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LAUNCH, str(tmp_path / "train.log")]
    process = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    log = tmp_path / "train.log"
    while not (log.exists() and "rank 0" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.terminate()
    _, told = process.communicate(timeout=120)
    assert process.returncode == 143
    assert told == "cosyflow train: stopped before training began, nothing was saved; the same command begins again\n"
