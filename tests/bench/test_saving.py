"""The benchmark runs, so that it can be trusted on a machine that is rented to run it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.medium
def test_the_benchmark_runs(tmp_path: Path) -> None:
    script = Path(__file__).with_name("saving.py")
    command = [sys.executable, script, "--size", "tiny", "--tokens", "600", "--updates", "1", "--folder", str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    background, waiting = re.findall(r": (\d+\.\d\d) s, \d+\.\d\d% of the time", done.stdout)
    assert float(background) <= float(waiting) + 0.05
    assert (tmp_path / "epoch_0_step_3.pt").exists()
