"""A process that gives one reader damaged files, for as long as FUZZ_SECONDS says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SECONDS = float(os.environ.get("FUZZ_SECONDS", "20"))
SEED = os.environ.get("FUZZ_SEED", "0")
"""Of the first round: equal seeds make equal inputs."""
MARGIN_SECONDS = 600
"""For the start, and for finding the smallest input that fails."""


def give_damaged_files(target: str) -> None:
    """Fails when the reader raises what is not for its user, does not end, takes all memory, or ends the process."""
    command = [sys.executable, "-m", "tests.fuzz", target, f"--seconds={SECONDS}", f"--seed={SEED}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    limit = SECONDS + MARGIN_SECONDS
    ended = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=limit)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stderr[-8000:]
