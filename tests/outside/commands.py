"""Runs CosyFlow's commands as a shell does. Nothing of CosyFlow is imported here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 600
OF_OTHER_RUNS = ("AWS_", "COSYFLOW_", "KFP_", "MLFLOW_")


def cosyflow(*words: str) -> subprocess.CompletedProcess[str]:
    """`cosyflow WORDS`."""
    return _run([str(Path(sys.executable).with_name("cosyflow")), *words])


def pipelines(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m pipelines WORDS`, with further variables of the environment."""
    return _run([sys.executable, "-m", "pipelines", *words], **variables)


def _run(command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs in the repository, on the CPU with one thread, so that numbers do not depend on the machine's size."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OF_OTHER_RUNS)}
    ours = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "1000"}
    environment = inherited | ours | variables
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
