"""A program: one process of a job that trains the same small model by torch_ddp and by DeepSpeed, and compares them."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch

from cosyflow.checkpoint.state import Resumption
from cosyflow.config.training import OptimConf
from cosyflow.training.engine.base import Engine
from cosyflow.training.engine.ddp import TorchDDP
from cosyflow.training.engine.deepspeed import DeepSpeed
from cosyflow.training.loop import Training, train
from cosyflow.training.member import member_of_a_job
from cosyflow.training.ranks import Ranks, process_group
from cosyflow.training.reports import UpdateReport
from cosyflow.training.telemetry import Telemetry
from tests.unit.training.toy import CountingData, NextToken, conf

UPDATES = 20
SETTINGS = conf(
    accum_grad=4, max_epoch=6, grad_clip=0.5, optim="adamw", optim_conf=OptimConf(lr=0.02, weight_decay=0.01)
)
"""Some gradients are limited; of the 13 sequences two ranks get unequal numbers, and updates unequal accumulation."""


class Kept:
    """What would be written."""

    def __init__(self) -> None:
        self.last: list[Any] = []

    def save(self, snapshot: Any, position: Any, fingerprint: str, record: Any) -> None:
        self.last = copy.deepcopy([snapshot, position, fingerprint])


class Noted(Telemetry):
    """Keeps loss and gradient norm of every update."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(SETTINGS, ranks, line=lambda text: None, metrics=lambda update, values: None)
        self.numbers: list[tuple[float, float]] = []

    def observe(self, report: UpdateReport) -> None:
        self.numbers.append((report.means["loss"], report.grad_norm))
        super().observe(report)


def trained(
    engine: Engine, updates: int, start: list[Any] | None = None
) -> tuple[list[tuple[float, float]], list[Any]]:
    """Losses and norms of a run of so many updates, and its last checkpoint on every rank."""
    kept, noted = Kept(), Noted(engine.ranks)
    resumption = Resumption(*copy.deepcopy(start), "checkpoint") if start else None
    training = Training(
        NextToken(dropout=0.1), CountingData(engine.ranks, 13, per_update=SETTINGS.accum_grad), SETTINGS, engine
    )
    train(training, noted, kept if engine.ranks.is_first else None, resumption, None, updates)  # type: ignore[arg-type]
    return noted.numbers, engine.ranks.share(lambda: kept.last)


def distance(one: list[Any], other: list[Any]) -> float:
    """The largest difference of two checkpoints' weights."""
    ours, theirs = one[0].weights, other[0].weights
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def main(output: str, zero: str) -> None:
    with member_of_a_job(), process_group("gloo", 600, even_alone=True) as ranks:

        def deepspeed() -> Engine:
            return DeepSpeed(ranks, {"zero_optimization": json.loads(zero)}, True, print)

        numbers, plain = trained(TorchDDP(ranks), UPDATES)
        ours, whole = trained(deepspeed(), UPDATES)
        _, half = trained(deepspeed(), 9)
        rest, resumed = trained(deepspeed(), UPDATES, half)
        _, by_torch = trained(TorchDDP(ranks), UPDATES, half)
        _, half_by_torch = trained(TorchDDP(ranks), 9)
        _, by_deepspeed = trained(deepspeed(), UPDATES, half_by_torch)
        if ranks.is_first:
            moments, other = plain[0].optimizer["state"], whole[0].optimizer["state"]
            found = {
                "updates": len(ours),
                "numbers": max(
                    abs(a - b) / a
                    for one, two in zip(numbers, ours, strict=True)
                    for a, b in zip(one, two, strict=True)
                ),
                "weights": distance(plain, whole),
                "moments": max(float((moments[i][k] - other[i][k]).abs().max()) for i in moments for k in moments[i]),
                "groups": plain[0].optimizer["param_groups"] == whole[0].optimizer["param_groups"],
                "resumed": distance(whole, resumed),
                "rest": ours[9:] == rest,
                "by_torch": distance(plain, by_torch),
                "by_deepspeed": distance(plain, by_deepspeed),
                "own_memory": all(
                    weight.untyped_storage().nbytes() == weight.nbytes for weight in whole[0].weights.values()
                ),
            }
            Path(output).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
