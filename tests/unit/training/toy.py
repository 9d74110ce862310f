"""A small real model on number sequences, to test the loop with; also a program: one process of such a training."""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from cosyflow.checkpoint.background import BackgroundWriter
from cosyflow.checkpoint.writer import CheckpointWriter
from cosyflow.config.training import OptimConf, TrainConf
from cosyflow.dataset.plan import EpochPlan
from cosyflow.training.engine.base import Engine
from cosyflow.training.engine.ddp import TorchDDP
from cosyflow.training.engine.deepspeed import DeepSpeed
from cosyflow.training.loop import Ending, Training, train
from cosyflow.training.member import end_job, member_of_a_job
from cosyflow.training.objective import Batch, Objective, Outcome, TrainingData
from cosyflow.training.preflight import preflight
from cosyflow.training.ranks import Ranks, process_group
from cosyflow.training.resumption import share_newest
from cosyflow.training.stop import StopRequest
from cosyflow.training.telemetry import Telemetry
from cosyflow.training.watch import Steps, watching_ranks

VOCABULARY = 17
CPU = torch.device("cpu")
ALONE = Ranks(0, 1, CPU)
PER_UPDATE = 2
"""Sequences of an update, where a test says nothing else."""


@dataclass(frozen=True)
class Sequences:
    utterances: list[str]
    tokens: torch.Tensor  # int64 [T], all sequences end to end

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    def to(self, device: torch.device, non_blocking: bool = False) -> Sequences:
        return Sequences(self.utterances, self.tokens.to(device))


class NextToken(Objective):
    """Predicts the next number of a sequence; its dropout shows whether random states are restored."""

    metrics = ("acc",)

    def __init__(self, seed: int = 0, dropout: float = 0.2, infinite: str = "") -> None:
        super().__init__()
        self.infinite = infinite
        torch.manual_seed(seed)
        self.model = torch.nn.Sequential(
            torch.nn.Embedding(VOCABULARY, 8), torch.nn.Dropout(dropout), torch.nn.Linear(8, VOCABULARY)
        )

    def compute(self, batch: Batch) -> Outcome:
        assert isinstance(batch, Sequences)
        logits = self.model(batch.tokens[:-1])  # [T-1, V]
        targets = batch.tokens[1:]
        loss = F.cross_entropy(logits, targets, reduction="sum")
        if self.infinite in batch.utterances:
            loss = loss * float("inf")
        return Outcome(loss, len(targets), {"acc": (logits.argmax(-1) == targets).sum()})

    def flops(self, batch: Batch) -> float:
        return 6.0 * 8 * VOCABULARY * batch.num_tokens


class CountingData:
    """Sequences that count up modulo the vocabulary, of different lengths; each is a batch."""

    def __init__(self, ranks: Ranks, num_sequences: int = 14, seed: int = 0, per_update: int = PER_UPDATE) -> None:
        self.ranks = ranks
        self.per_update = per_update
        self.seed = seed
        generator = torch.Generator().manual_seed(7)
        lengths = torch.randint(3, 12, (num_sequences,), generator=generator).tolist()
        self.sequences = [torch.arange(n) * (1 + i % 3) % VOCABULARY for i, n in enumerate(lengths)]

    def order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(self.seed * 1000 + epoch)
        return torch.randperm(len(self.sequences), generator=generator).tolist()

    def num_batches(self, epoch: int) -> int:
        return len(self.sequences)

    def batches(self, epoch: int, start: int) -> Iterator[Sequences | None]:
        plan = EpochPlan(epoch, np.array(self.order(epoch)), np.arange(len(self.sequences) + 1))
        for rows in plan.share(self.ranks.rank, self.ranks.world_size, self.per_update, start):
            yield self.sequence(int(rows[0])) if len(rows) else None

    def validation_batches(self) -> Iterator[Sequences | None]:
        for number in range(self.ranks.rank, 5, self.ranks.world_size):
            yield self.sequence(number)

    def sequence(self, number: int) -> Sequences:
        return Sequences([f"utt{number}"], self.sequences[number])

    def fingerprint(self, epoch: int) -> str:
        return hashlib.sha256(repr((self.order(epoch), self.per_update)).encode()).hexdigest()


class IllData(CountingData):
    """The data of a rank that is ill from its tenth batch on: it `stops`, `reads` for ever, or is `slow`."""

    def __init__(self, ranks: Ranks, num_sequences: int, how: str, per_update: int) -> None:
        super().__init__(ranks, num_sequences, per_update=per_update)
        self.how = how
        self.count = 0

    def batches(self, epoch: int, start: int) -> Iterator[Sequences | None]:
        for batch in super().batches(epoch, start):
            self.count += 1
            if self.count > 10 and self.how == "stops":
                os.kill(os.getpid(), signal.SIGSTOP)
            if self.count > 10 and self.how == "reads":
                time.sleep(1000)
            time.sleep(0.05 if self.how == "slow" else 0.3)  # so slowly that the others hear of its updates
            yield batch


def conf(**changes: object) -> TrainConf:
    settings: dict[str, object] = {
        "optim_conf": OptimConf(lr=0.02), "max_epoch": 3, "log_interval": 2, "accum_grad": PER_UPDATE, **changes
    }  # fmt: skip
    return TrainConf(**settings)  # type: ignore[arg-type]


def training(
    objective: Objective,
    settings: TrainConf,
    ranks: Ranks = ALONE,
    data: TrainingData | None = None,
    engine: Engine | None = None,
) -> Training:
    return Training(
        objective, data or CountingData(ranks, per_update=settings.accum_grad), settings, engine or TorchDDP(ranks)
    )


def quiet(settings: TrainConf, ranks: Ranks) -> Telemetry:
    return Telemetry(settings, ranks, line=lambda text: None, metrics=lambda update, values: None)


def run(
    directory: str | None,
    settings: TrainConf,
    ranks: Ranks = ALONE,
    max_updates: int | None = None,
    telemetry: Telemetry | None = None,
    stop: StopRequest | None = None,
    lines: list[str] | None = None,
) -> tuple[NextToken, Ending]:
    """Trains the toy, going on from the newest checkpoint in `directory`; `lines` gets what is said of that."""
    objective = NextToken()
    tell = lines.append if lines is not None else lambda text: None
    resumption = share_newest(directory, ranks, tell) if directory else None
    writer = None
    if directory and ranks.is_first:
        done = resumption.position.update if resumption else 0
        told = {"model": "toy", "world_size": ranks.world_size}
        writer = BackgroundWriter(CheckpointWriter(directory, told, settings.keep_last, settings.keep_best, done), tell)
    with writer or nullcontext():
        ending = train(
            training(objective, settings, ranks),
            telemetry or quiet(settings, ranks),
            writer,
            resumption,
            stop,
            max_updates,
        )
    return objective, ending


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--accum-grad", type=int, default=4)
    parser.add_argument("--sequences", type=int, default=13)
    parser.add_argument("--infinite", default="", help="utterance whose loss is infinite")
    parser.add_argument("--zero", type=int, help="train by DeepSpeed with this stage of ZeRO")
    parser.add_argument("--timeout", type=float, default=600.0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--ill", nargs=2, default=("", "-1"), metavar=("HOW", "RANK"), help="see IllData")
    args = parser.parse_args()
    with member_of_a_job(), process_group("gloo", args.timeout) as ranks:
        preflight(ranks, print if ranks.is_first else lambda line: None)
        engine = (
            None if args.zero is None else DeepSpeed(ranks, {"zero_optimization": {"stage": args.zero}}, True, print)
        )
        settings = conf(accum_grad=args.accum_grad, max_epoch=args.epochs)
        objective = NextToken(dropout=0.0, infinite=args.infinite)
        writer = BackgroundWriter(CheckpointWriter(args.directory, {}, 1, 1), print) if ranks.is_first else None
        how, rank = args.ill
        is_ill, batches, count = ranks.rank == int(rank), args.accum_grad, args.sequences
        data = IllData(ranks, count, how, batches) if is_ill else CountingData(ranks, count, per_update=batches)
        trained, steps = training(objective, settings, ranks, data, engine), Steps()
        with writer or nullcontext(), watching_ranks(steps, ranks, args.timeout, print, end_job):
            train(trained, quiet(settings, ranks), writer, steps=steps)


if __name__ == "__main__":
    main()
