"""A training that is killed and started again ends with the weights of one that was not, to the last bit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cosyflow.checkpoint.folder import list_checkpoints
from cosyflow.cli import main
from tests.local.token_corpus import RECIPE, REPOSITORY, TokenCorpus, make_token_corpus

SMALL_MODEL = (
    "llm.qwen2.hidden_size=32", "llm.qwen2.num_hidden_layers=1", "llm.qwen2.intermediate_size=48",
    "train_conf.tokens_per_step=120", "train_conf.save_per_step=5", "train_conf.log_interval=1",
)  # fmt: skip
PROCESSES = 2
UPDATES = 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TokenCorpus:
    return make_token_corpus(tmp_path_factory.mktemp("corpus"))


def options(corpus: TokenCorpus, model_dir: Path, max_steps: int = UPDATES) -> list[str]:
    settings = [word for setting in SMALL_MODEL for word in ("--set", setting)]
    lists = ["--train_data", corpus.train_list, "--cv_data", corpus.dev_list, "--tokenizer_path", corpus.qwen2]
    where = [
        "--model_dir",
        str(model_dir),
        "--gpus_per_node",
        str(PROCESSES),
        "--max_steps",
        str(max_steps),
        "--num_workers",
        "0",
    ]
    return ["train", "--config", str(RECIPE), *lists, *where, *settings]


def final_state(model_dir: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    tag = json.loads((model_dir / "result.json").read_text())["checkpoint"]
    weights = torch.load(model_dir / f"{tag}.pt", weights_only=True)
    return weights, torch.load(model_dir / f"{tag}.state.pt", weights_only=True)


@pytest.mark.slow
def test_killed_training_ends_with_the_same_weights(corpus: TokenCorpus, tmp_path: Path) -> None:
    assert main(options(corpus, tmp_path / "whole")) == 0

    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "cosyflow", *options(corpus, killed, max_steps=100)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
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


def wait_for_update(model_dir: Path, update: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while not any(number >= update for number, _ in logged(model_dir)):
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline, "it is too slow"
        time.sleep(0.05)


def logged(model_dir: Path) -> list[tuple[int, float]]:
    """Update and loss of every entry of the metrics file that is whole."""
    path = model_dir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(entry["update"], entry["train/loss"]) for entry in entries if "train/loss" in entry]


def descendants(process: int) -> list[int]:
    """A process and all that it started, directly or not."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [process]
    for member in found:
        found += children.get(member, [])
    return found
