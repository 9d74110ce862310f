"""Learning-rate curves of the official schedulers (data/schedulers.json)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cosyflow.config.training import OptimConf, SchedulerConf, TrainConf
from cosyflow.training.schedules import learning_rate


def train_conf(case: dict[str, Any]) -> TrainConf:
    settings = dict(case["args"])
    for name in ("warmup", "hold"):  # the official schedulers take a share of max_steps instead of a number, too
        if f"{name}_ratio" in settings:
            settings[f"{name}_steps"] = int(settings.pop(f"{name}_ratio") * settings["max_steps"])
    return TrainConf(
        optim_conf=OptimConf(lr=case["base_lr"]),
        scheduler=case["yaml_name"],
        scheduler_conf=SchedulerConf(**settings),
    )


@pytest.mark.golden_files("data/schedulers*.json")
def test_rates_are_the_official_ones(golden_file: Path) -> None:
    for case in json.loads(golden_file.read_text())["cases"]:
        start = case["start_step"]
        rates = [learning_rate(train_conf(case), start + i) for i in range(len(case["lr_used_at_update"]))]
        # After a resume the official code makes one update with the rate of step 0. Ours does not repeat that.
        first = 0 if start == 0 else 1
        assert rates[first:] == pytest.approx(case["lr_used_at_update"][first:], rel=1e-12), case["scheduler"]


@pytest.mark.golden_files("data/schedulers*.json")
def test_a_resumed_run_has_no_cold_update(golden_file: Path) -> None:
    resumed = [
        case
        for case in json.loads(golden_file.read_text())["cases"]
        if case["start_step"] > 0 and case["scheduler"] == "WarmupLR"
    ]
    for case in resumed:
        official_first = case["lr_used_at_update"][0]
        conf = train_conf(case)
        assert official_first == pytest.approx(learning_rate(conf, 0))
        assert learning_rate(conf, case["start_step"]) > 2 * official_first
