"""How fast training is in a pod, beside the same command outside of one."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cosyflow import storage
from cosyflow.training.arguments import Arguments
from tests.cluster.small_training import make_arguments
from tests.cluster.stage_jobs import StageJobs

pytestmark = [pytest.mark.slow, pytest.mark.long]

ROUNDS = 5
SETTINGS = ("train_conf.max_epoch=1", "train_conf.tokens_per_step=2000", "train_conf.log_interval=10")
UTTERANCES = 250
IN_IMAGES = "/opt/cosyflow/conf/cosyvoice2.tiny.yaml"


def tokens_per_second(arguments: Arguments) -> float:
    speed: float = storage.read_json(storage.join(arguments.model_dir, "result.json"))["tokens_per_second"]
    return speed


def test_tokens_per_second_in_a_pod_and_outside(
    store: str, tmp_path: Path, stage_jobs: StageJobs, figure: Callable[[str], None]
) -> None:
    arguments = make_arguments(store, tmp_path, UTTERANCES)
    inside: list[float] = []
    outside: list[float] = []
    for number in range(ROUNDS):
        run = replace(arguments, max_steps=None, overrides=SETTINGS)
        here = replace(run, model_dir=storage.join(arguments.model_dir, f"here-{number}"))
        local = ["--launcher", "local"]
        command = [sys.executable, "-m", "cosyflow", "train", *here.command_line(), *local]
        subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, stdout=subprocess.DEVNULL)
        outside.append(tokens_per_second(here))

        there = replace(run, model_dir=storage.join(arguments.model_dir, f"there-{number}"), config=IN_IMAGES)
        # A whole core is asked for: what a pod asks for is its weight against the other processes of a busy node.
        name = f"speed-{uuid.uuid4().hex[:6]}"
        stage_jobs.run("train", name, "train", *there.command_line(), *local, cpu="1")
        inside.append(tokens_per_second(there))
    ratio = statistics.median(one / other for one, other in zip(inside, outside, strict=True))
    figure(
        f"training of cosyvoice2.tiny, one thread, medians of {ROUNDS}: {statistics.median(inside):.0f} tokens/s in a"
        f" pod, {statistics.median(outside):.0f} outside; of each pair a pod has {ratio:.2f} times the other"
    )
    assert ratio > 0.5, f"in a pod {inside}, outside {outside}"
