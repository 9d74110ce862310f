"""The benchmark of the vocoder runs, so that it can be trusted on a machine that is rented to run it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 24000
SECONDS = 2


def write_voice(path: Path, f0: float) -> None:
    """A steady buzz that the f0 tracker calls voiced."""
    phase = 2 * np.pi * f0 * np.arange(SECONDS * RATE) / RATE
    soundfile.write(path, 0.1 * sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 9)), RATE)


@pytest.mark.slow
def test_data_step_and_loop_are_timed_without_an_upstream_checkout(tmp_path):
    for number in range(4):
        write_voice(tmp_path / f"1_{number}.wav", 100.0 + 20 * number)
    script = Path(__file__).with_name("vocoder.py")
    settings = {"--speech": tmp_path, "--size": "smallest", "--windows": "2", "--rounds": "1"}
    command = [sys.executable, script, *(item for setting in settings.items() for item in setting)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)

    rates = {name: float(rate) for name, rate in re.findall(r"^(step|data|loop).*: ours ([\d.]+)$", done.stdout, re.M)}
    assert rates.keys() == {"step", "data", "loop"}
    assert 0 < rates["loop"] < rates["data"]
