"""A new family is one folder: `toys/toy` is put among the families, and the product's own command trains it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
TOYS = Path(__file__).parent / "toys"
RECIPE = """
version: toy
counter: {channels: 12}
train_conf: {max_epoch: 1, accum_grad: 1, seed: 3, optim_conf: {lr: 0.05}}
"""


def with_the_toy(program: str, *words: str) -> str:
    """What a program prints for which the toy is a family."""
    command = f"import sys, cosyflow.families; cosyflow.families.__path__.append({str(TOYS)!r})\n{program}"
    ended = subprocess.run(
        [sys.executable, "-c", command, *words], cwd=CHECKOUT, capture_output=True, text=True, timeout=100, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_its_facts_are_known() -> None:
    program = "from cosyflow.families import *; print(family_names(), part_names(), part('counter').conf)"
    assert with_the_toy(program).strip() == (
        "['cosyvoice', 'cosyvoice2', 'cosyvoice3', 'toy'] ('llm', 'flow', 'hifigan', 'counter') train_conf"
    )


@pytest.mark.medium
def test_ten_steps_are_trained_and_their_weights_are_recognised(tmp_path: Path) -> None:
    recipe, model_dir = tmp_path / "toy.yaml", tmp_path / "model"
    recipe.write_text(RECIPE)
    options = {"config": recipe, "model": "counter", "model_dir": model_dir, "train_data": "-", "cv_data": "-"}
    words = [f"--{name}={value}" for name, value in options.items()]

    with_the_toy("from cosyflow.training.process import main; main()", *words, "--max_steps=10")

    noted = yaml.safe_load((model_dir / "epoch_0_step_10.yaml").read_text())
    assert (noted["version"], noted["model"], noted["step"]) == ("toy", "counter", 10)
    weights = str(model_dir / "epoch_0_step_10.pt")
    assert "toy counter" in with_the_toy("from cosyflow.cli.main import main; main()", "inspect", weights)
