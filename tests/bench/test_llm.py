"""The benchmark runs, so that it can be trusted on a machine that is rented to run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_benchmark_runs_without_an_upstream_checkout():
    script = Path(__file__).with_name("llm.py")
    command = [sys.executable, script, "--size", "tiny", "--tokens", "500", "--budgets", "600"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)

    row = next(line for line in done.stdout.splitlines() if line.startswith("ours"))
    speed = float(row.split()[-3])
    assert speed > 0
