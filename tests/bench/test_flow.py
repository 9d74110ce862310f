"""The benchmark of the flow runs, so that it can be trusted on a machine that is rented to run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_training_steps_and_estimators_are_timed_without_an_upstream_checkout():
    script = Path(__file__).with_name("flow.py")
    command = [sys.executable, script, "--size", "tiny", "--batches", "1", "--rounds", "1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)

    timed = [line.split() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert [row[:-3] for row in timed if row[-1] == "frames/s"] == 3 * [["ours,", "float32"], ["ours,", "bfloat16"]]
    assert [row[:-4] for row in timed if row[-1] == "ONNX"] == 3 * [["ONNX"], ["ours,", "eager"]]
    assert all(float(row[-3]) > 0 for row in timed if row[-1] == "frames/s")
    assert all(float(row[-4]) > 0 for row in timed if row[-1] == "ONNX")
