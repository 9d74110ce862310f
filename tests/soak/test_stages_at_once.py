"""Every stage begun by several processes at random times, over and over: `make soak`.

SOAK_ROUNDS (10) rounds for each stage and number of processes, on a folder. A round that fails names its seed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cosyflow.config.options import STAGE_NAMES
from tests.unit.run.closures import CHECKOUT

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "10"))
PROGRAM = "tests.soak.pipeline_stage"


def start(folder: Path, stage: str, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", PROGRAM, str(folder), stage, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=900)
    assert process.returncode == 0, out
    manifest: dict[str, Any] = json.loads(out.splitlines()[-1])
    return manifest


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, stand-ins, and the whole run done once, so that every stage finds its inputs."""
    place = tmp_path_factory.mktemp("soak")
    for stage in STAGE_NAMES:
        finish(start(place, stage))
    return place


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("processes", [2, 8])
@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_a_stage_at_once(folder: Path, stage: str, processes: int, seed: int) -> None:
    """One makes it, the others reuse it, and it is what it was."""
    before = finish(start(folder, stage))
    finish(start(folder, stage, "--forget"))
    chance = random.Random(f"{stage} {processes} {seed}")
    started = []
    for _ in range(processes):
        started.append(start(folder, stage))
        time.sleep(chance.uniform(0.0, 2.0 / processes))
    if seed % 2:  # one of them is killed on the way
        chance.choice(started[:-1]).send_signal(signal.SIGKILL)
    ends = [finish(process) for process in started if process.wait(900) != -signal.SIGKILL]
    assert sum(not end["reused"] for end in ends) <= 1
    # a further registration makes a further version
    assert {end["digest"] for end in ends} == {ends[0]["digest"] if stage == "register" else before["digest"]}
    assert {json.dumps(end["files"], sort_keys=True) for end in ends} == {json.dumps(ends[0]["files"], sort_keys=True)}
    left = [path for path in Path(before["uri"]).rglob("*.part") if ".leases" not in path.parts]
    assert left == []


@pytest.mark.slow
def test_a_training_that_stood_still_is_overtaken(folder: Path) -> None:
    before = finish(start(folder, "train"))
    finish(start(folder, "train", "--forget"))
    first = start(folder, "train")
    lease = Path(before["uri"]) / ".leases" / "training.1"
    numbers = Path(before["uri"]) / ".leases"
    deadline = time.monotonic() + 120
    while not any(path.name.startswith("training.") for path in numbers.glob("training.*")):
        assert time.monotonic() < deadline, f"no {lease}"
        time.sleep(0.1)
    holder = json.loads(next(numbers.glob("training.*")).read_text())["pid"]
    for process in (first.pid, holder):
        os.kill(process, signal.SIGSTOP)
    second = finish(start(folder, "train"))
    for process in (first.pid, holder):
        os.kill(process, signal.SIGCONT)
    out, _ = first.communicate(timeout=300)
    assert first.returncode == 1, out
    assert "stood still" in out
    assert second["digest"] == before["digest"]
