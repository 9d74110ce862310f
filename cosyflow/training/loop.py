"""The training loop, the same for every model: updates, cross validation and checkpoints, epoch after epoch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import torch

from cosyflow.checkpoint.state import Position, Resumption, Snapshot
from cosyflow.checkpoint.writer import CheckpointWriter
from cosyflow.config.training import TrainConf
from cosyflow.errors import CosyFlowError
from cosyflow.training.objective import Objective, TrainingData
from cosyflow.training.ranks import Ranks
from cosyflow.training.schedules import learning_rate
from cosyflow.training.telemetry import Telemetry
from cosyflow.training.update import Updater, UpdateStrategy


class StopRequest:
    """Whether this process was asked to end (SIGTERM, SIGINT, `ask`): it then saves a checkpoint and leaves."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""

    def ask(self, reason: str) -> None:
        """Asks for the end for a reason that is told when it has come."""
        self.reason = reason
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Listens while the `with` body runs."""
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            signal.signal(number, lambda *_: self._event.set())
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass(frozen=True)
class Ending:
    """How a run ended: `finished` after its last epoch or update, otherwise because it was asked to stop.

    `reason` is why, on the rank that knows it; empty after a signal.
    """

    position: Position
    finished: bool
    reason: str = ""


def train(
    objective: Objective,
    data: TrainingData,
    conf: TrainConf,
    ranks: Ranks,
    telemetry: Telemetry,
    checkpoints: CheckpointWriter | None,
    resumption: Resumption | None = None,
    stop: StopRequest | None = None,
    max_updates: int | None = None,
    updater: UpdateStrategy | None = None,
) -> Ending:
    """Trains the objective's model.

    Args:
        objective: its model is on the device of `ranks` and holds the weights to start from.
        data: this rank's share.
        conf: how to train.
        ranks: this process among the others.
        telemetry: is told what happens.
        checkpoints: None on every rank but the first.
        resumption: the optimizer and the position to go on from; None starts at the beginning.
        stop: ends the run early, after a checkpoint.
        max_updates: ends the run after so many updates, counted over all starts.
        updater: how the weights change; None takes one optimizer for all of them.

    Raises:
        CosyFlowError: a loss that is not finite, or a position that does not fit the data any more.
    """
    updater = updater or Updater(objective, conf, ranks)
    position = Position()
    if resumption is not None:
        updater.optimizer.load_state_dict(dict(resumption.snapshot.optimizer))
        position = resumption.position
        _check_same_batches(resumption, data)
    if max_updates is not None and position.update >= max_updates:
        return Ending(position, finished=True)

    def save(record: dict[str, object]) -> None:
        if checkpoints is not None:
            snapshot = Snapshot(objective.model.state_dict(), updater.optimizer.state_dict())
            checkpoints.save(snapshot, position, data.fingerprint(position.epoch), record)
        ranks.barrier()
        telemetry.skip_time()

    telemetry.start(position)
    while position.epoch < conf.max_epoch:
        objective.train()
        num_batches = data.num_batches(position.epoch)
        batches = data.batches(position.epoch, position.batch)
        while position.batch < num_batches:
            group = list(islice(batches, min(conf.accum_grad, num_batches - position.batch)))
            rate = learning_rate(conf, position.update)
            reports = updater.update(group, position.update, rate, stop=bool(stop))
            position.batch += len(group)
            position.update += 1
            telemetry.observe(reports, position, num_batches)

            asked = any(report.stop_requested for report in reports)
            ends = asked or position.update == max_updates
            if ends or (conf.save_per_step > 0 and position.update % conf.save_per_step == 0):
                telemetry.observe(updater.flush(), position, num_batches)
                save({"tag": "TRAIN", **position.last_update})
            if ends:
                return Ending(position, finished=not asked, reason=stop.reason if stop else "")
        telemetry.observe(updater.flush(), position, num_batches)

        validation = cross_validate(objective, data, ranks)
        telemetry.end_epoch(position, validation)
        position.next_epoch()
        save({"tag": "CV", "loss_dict": validation, **position.last_update})
    return Ending(position, finished=True)


def cross_validate(objective: Objective, data: TrainingData, ranks: Ranks) -> dict[str, float]:
    """The objective's means over the whole validation set, `loss` first, equal on every rank.

    Each rank computes its share; the sums are added up in float64, so that the number of ranks does not show.
    """
    objective.eval()
    totals = torch.zeros(2 + len(objective.metrics), dtype=torch.float64, device=ranks.device)
    with torch.no_grad():
        for batch in data.validation_batches():
            if batch is not None:
                outcome = objective(batch.to(ranks.device, non_blocking=True))
                totals[0] += outcome.count
                totals[1:] += torch.stack(
                    [outcome.loss_sum.double(), *(outcome.sums[name].double() for name in objective.metrics)]
                )
    count, *sums = ranks.sum_(totals).tolist()
    if count == 0:
        raise CosyFlowError("the validation set has no utterance left after filtering; look at --cv_data and `filter`")
    return objective.means(count, dict(zip(("loss", *objective.metrics), sums, strict=True)))


def _check_same_batches(resumption: Resumption, data: TrainingData) -> None:
    """Within an epoch the next batch is only the right one if all batches are still the same."""
    position = resumption.position
    if position.batch and resumption.fingerprint != data.fingerprint(position.epoch):
        raise CosyFlowError(
            f"{resumption.name}: cannot go on within an epoch, because the data, the number of processes or the batch"
            f" settings are not those of that run; use them again, or start from its weights (--checkpoint"
            f" {resumption.name}.pt with another --model_dir)"
        )
