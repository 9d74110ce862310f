"""Trainings of a small language model as jobs of several processes: to be killed, and to be compared."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from tests.local.token_corpus import RECIPE, REPOSITORY, TokenCorpus

SMALL_MODEL = (
    "llm.qwen2.hidden_size=32", "llm.qwen2.num_hidden_layers=1", "llm.qwen2.intermediate_size=48",
    "train_conf.tokens_per_step=120", "train_conf.accum_grad=4", "train_conf.log_interval=1",
)  # fmt: skip


def train_command(corpus: TokenCorpus, model_dir: Path, processes: int, max_steps: int, *settings: str) -> list[str]:
    """Words of `cosyflow`; three updates an epoch, one of them smaller."""
    lists = ["--train_data", corpus.train_list, "--cv_data", corpus.dev_list, "--tokenizer_path", corpus.qwen2]
    how = {"model_dir": model_dir, "gpus_per_node": processes, "max_steps": max_steps, "num_workers": 0}
    options = [word for name, value in how.items() for word in (f"--{name}", str(value))]
    overrides = [word for setting in (*SMALL_MODEL, *settings) for word in ("--set", setting)]
    return ["train", "--config", str(RECIPE), *lists, *options, *overrides]


def begin(command: list[str]) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "cosyflow", *command]
    return subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def logged(model_dir: Path, since: float = 0.0) -> list[tuple[int, float]]:
    """Update and loss of every entry of the metrics file that is whole, and not older than a moment (`time.time()`)."""
    path = model_dir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [
        (entry["update"], entry["train/loss"]) for entry in entries if "train/loss" in entry and entry["time"] >= since
    ]


def wait_for_update(model_dir: Path, update: int, process: subprocess.Popen[bytes], since: float = 0.0) -> None:
    deadline = time.monotonic() + 600
    while not any(number >= update for number, _ in logged(model_dir, since)):
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline, "it is too slow"
        time.sleep(0.05)


def final_state(model_dir: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Weights and state of the checkpoint that a finished training ended with."""
    tag = json.loads((model_dir / "result.json").read_text())["checkpoint"]
    weights = torch.load(model_dir / f"{tag}.pt", weights_only=True)
    return weights, torch.load(model_dir / f"{tag}.state.pt", weights_only=True)


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
