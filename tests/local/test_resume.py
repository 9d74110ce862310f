"""A training that is killed and started again ends with the weights of one that was not, to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cosyflow.checkpoint.folder import list_checkpoints
from cosyflow.cli import main
from tests.local.jobs import begin, descendants, final_state, logged, train_command, wait_for_update
from tests.local.token_corpus import REPOSITORY, TokenCorpus

PROCESSES = 2
UPDATES = 20


def options(corpus: TokenCorpus, model_dir: Path, max_steps: int = UPDATES) -> list[str]:
    return train_command(corpus, model_dir, PROCESSES, max_steps, "train_conf.save_per_step=5")


@pytest.mark.slow
def test_killed_training_ends_with_the_same_weights(corpus: TokenCorpus, tmp_path: Path) -> None:
    assert main(options(corpus, tmp_path / "whole")) == 0

    killed = tmp_path / "killed"
    process = begin(options(corpus, killed, max_steps=100))
    wait_for_update(killed, 10, process)
    family = descendants(process.pid)
    assert len(family) >= 2 + PROCESSES, "the launcher, torchrun and its processes"
    for member in family:
        os.kill(member, signal.SIGKILL)
    process.wait()
    saved = sorted(path.name for path in killed.glob("*.yaml"))
    assert saved, "killed before the first checkpoint"
    assert not (killed / "result.json").exists()
    assert main(options(corpus, killed)) == 0

    weights, state = final_state(tmp_path / "whole")
    again, state_again = final_state(killed)
    assert weights.keys() == again.keys()
    assert [name for name, tensor in weights.items() if not torch.equal(tensor, again[name])] == []
    moments, moments_again = (s["optimizer"]["state"] for s in (state, state_again))
    assert all(torch.equal(moments[i]["exp_avg_sq"], moments_again[i]["exp_avg_sq"]) for i in moments)
    assert logged(tmp_path / "whole") == logged(killed), "the metrics tell of every update once"


@pytest.mark.slow
def test_a_request_to_stop_saves_and_the_same_command_goes_on(corpus: TokenCorpus, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cosyflow", *options(corpus, tmp_path, max_steps=1000)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for_update(tmp_path, 2, process)
    process.terminate()
    _, told = process.communicate(timeout=600)
    assert process.returncode == 143
    stopped = list_checkpoints(str(tmp_path))[-1]
    assert told == f"cosyflow train: stopped after update {stopped.update}, which is saved; the same command goes on\n"

    assert main(options(corpus, tmp_path, max_steps=stopped.update + 1)) == 0
    assert f"goes on from {stopped.name}" in (tmp_path / "train.log").read_text()
