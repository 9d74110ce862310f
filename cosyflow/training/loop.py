"""The training loop, the same for every model: updates, cross validation and checkpoints, epoch after epoch.

The loss of an update is the mean over all targets of all its batches on all ranks: every target weighs the same,
however the utterances fell into batches. Gradients of the *sums* are accumulated and divided by the number of targets
at the end, when that number has been added up over the ranks on the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import torch

from cosyflow.checkpoint.background import BackgroundWriter
from cosyflow.checkpoint.state import Position, Resumption
from cosyflow.config.training import TrainConf
from cosyflow.dataset.plan import batches_each
from cosyflow.errors import CosyFlowError
from cosyflow.training.engine.base import Engine, Learner
from cosyflow.training.objective import Batch, Objective, Outcome, TrainingData, Turn
from cosyflow.training.optimizer import build_optimizer
from cosyflow.training.ranks import Ranks
from cosyflow.training.reports import HOST_NUMBERS, Pending, Reports, UpdateReport
from cosyflow.training.schedules import learning_rate
from cosyflow.training.stop import StopRequest
from cosyflow.training.telemetry import Telemetry
from cosyflow.training.watch import Steps


@dataclass(frozen=True)
class Training:
    """What is trained, on what, and how."""

    objective: Objective
    """Its model is on the device of the ranks and holds the weights to start from."""
    data: TrainingData
    """This rank's share."""
    conf: TrainConf
    engine: Engine


@dataclass(frozen=True)
class Ending:
    """How a run ended: `finished` after its last epoch or update, otherwise because it was asked to stop.

    `reason` is why, on the rank that knows it; empty after a signal.
    """

    position: Position
    finished: bool
    reason: str = ""


def train(
    training: Training,
    telemetry: Telemetry,
    checkpoints: BackgroundWriter | None,
    resumption: Resumption | None = None,
    stop: StopRequest | None = None,
    max_updates: int | None = None,
    steps: Steps | None = None,
) -> Ending:
    """Trains the objective's model.

    Args:
        training: what, on what, and how.
        telemetry: observes what happens, and changes nothing of it.
        checkpoints: None on every rank but the first. They are being written yet when this returns.
        resumption: the weights, the optimizer and the position to go on from; None starts at the beginning.
        stop: ends the run early, after a checkpoint.
        max_updates: ends the run at this number of updates, counted over all starts.
        steps: notes what this rank is doing.

    Raises:
        CosyFlowError: a loss that is not finite, or a position that does not fit the data any more.
    """
    objective, data, conf, engine = training.objective, training.data, training.conf, training.engine
    position = resumption.position if resumption is not None else Position()
    spare = _any_batch(data, position.epoch) if engine.lockstep else None
    steps = steps or Steps()
    updater = Updater(objective, conf, engine, spare, steps)
    if resumption is not None:
        _check_same_batches(resumption, data)
        engine.load(objective.model, resumption.snapshot)
    if max_updates is not None and position.update >= max_updates:
        return Ending(position, finished=True)
    seconds_before, started = position.seconds, time.monotonic()

    def note(reports: Sequence[UpdateReport], num_batches: int) -> None:
        for report in reports:
            position.add(report.num_targets, report.means, {"lr": report.rate, "grad_norm": report.grad_norm})
            telemetry.observe(report)
            if (report.update + 1) % conf.log_interval == 0:
                telemetry.log(report, position.end_interval())
        position.seconds = seconds_before + time.monotonic() - started
        telemetry.show_progress(position, num_batches)

    def save(record: dict[str, object]) -> None:
        steps.saves()
        snapshot = engine.save(objective.model)
        if checkpoints is not None:
            checkpoints.save(snapshot, position, data.fingerprint(position.epoch), record)
        engine.ranks.barrier()
        telemetry.skip_time()

    telemetry.start(position)
    while position.epoch < conf.max_epoch:
        objective.train()
        num_batches = data.num_batches(position.epoch)
        batches = data.batches(position.epoch, position.batch)
        while position.batch < num_batches:
            steps.reads(position.update)
            of_job = min(conf.accum_grad, num_batches - position.batch)
            mine = list(islice(batches, batches_each(of_job, engine.ranks.world_size)))
            reports = updater.update(mine, position.update, stop=bool(stop))
            position.batch += of_job
            position.update += 1
            note(reports, num_batches)

            asked = any(report.stop_requested for report in reports)
            ends = asked or position.update == max_updates
            if ends or (conf.save_per_step > 0 and position.update % conf.save_per_step == 0):
                note(updater.rest(), num_batches)
                save({"tag": "TRAIN", **position.last_update})
            if ends:
                return Ending(position, finished=not asked, reason=stop.reason if stop else "")
        note(updater.rest(), num_batches)

        validation = cross_validate(objective, data, engine.ranks, engine.evaluate, spare, steps)
        telemetry.end_epoch(position, position.end_epoch(validation), validation)
        position.next_epoch()
        save({"tag": "CV", "loss_dict": validation, **position.last_update})
    return Ending(position, finished=True)


class Updater:
    """Makes updates: gradients of some batches on every rank, limited, then the step of each turn's optimizer.

    Args:
        objective: its model is on the device of the ranks.
        conf: `accum_grad` and `seed`, and what the objective's turns read.
        engine: takes in the part of each turn.
        spare: what this rank computes where it has nothing to do, if the engine asks for that (`Engine.lockstep`).
        steps: notes what this rank is doing.
    """

    def __init__(
        self,
        objective: Objective,
        conf: TrainConf,
        engine: Engine,
        spare: Batch | None = None,
        steps: Steps | None = None,
    ) -> None:
        self._objective = objective
        self._conf = conf
        self._ranks = engine.ranks
        self._spare = spare
        self._steps = steps or Steps()
        self._reports = Reports(objective, engine.ranks)
        self._failed = torch.zeros((), device=engine.ranks.device)
        self._turns: list[tuple[Turn, Learner]] = []
        for turn in objective.turns(conf):
            optimizer = build_optimizer(turn.part, turn.conf)
            self._turns.append((turn, engine.prepare(turn.part, optimizer, turn.name)))

    def update(
        self, batches: Sequence[Batch | None], update: int, stop: bool = False, rates: Sequence[float] | None = None
    ) -> list[UpdateReport]:
        """Changes the weights once.

        Args:
            batches: this rank's batches: of those of the whole job the ones with number rank, rank + world_size, ...;
                equally many on every rank, None where it has none.
            update: number of the update in the whole training run.
            stop: this rank was asked to end; the ranks learn of it together from the report.
            rates: learning rate of each turn; by default those of their schedules.

        Returns:
            The updates that are known to be finished: on CUDA the one before, elsewhere this one.

        Raises:
            NotFiniteError: loss or gradient is not finite; names the utterances. The weights are as before the update.
        """
        rates = rates or [learning_rate(turn.conf, update) for turn, _ in self._turns]
        device = self._ranks.device
        self._steps.computes(batches)
        there = [None if batch is None else batch.to(device, non_blocking=True) for batch in batches]
        losses = [_losses(self._objective, batch, self._spare, device) for batch in there]
        for (turn, learner), rate in zip(self._turns, rates, strict=True):
            learns = update >= turn.first_update
            outcomes = self._backward(learner, losses, update, learns)
            self._steps.waits()
            totals = self._total(batches, outcomes, stop)
            norm = torch.zeros((), device=device)
            if learns:
                self._failed = torch.maximum(self._failed, (~torch.isfinite(totals[HOST_NUMBERS])).float())
                norm = learner.step(totals[0], turn.conf.grad_clip, rate, self._failed)
        # an update is reported as its last turn gives it
        return self._reports.add(Pending(update, rate, batches, outcomes, totals, norm, self._failed))

    def rest(self) -> list[UpdateReport]:
        """Waits for the device; the updates that have not been reported yet."""
        return self._reports.rest()

    def _backward(
        self, learner: Learner, losses: Sequence[Iterator[Outcome]], update: int, learns: bool
    ) -> list[Outcome]:
        """The outcomes of one turn on all batches, with the gradients of their sum unless it does not learn yet."""
        learner.zero_grad()
        outcomes = []
        for number, of_batch in enumerate(losses):
            self._seed(update, number)
            if learns:
                is_last = number == len(losses) - 1
                outcome = learner.forward(partial(next, of_batch), is_last)
                if is_last:  # gradients are added up in its backward pass
                    self._steps.waits()
                learner.backward(outcome.loss_sum)
            else:
                with torch.no_grad():
                    outcome = next(of_batch)
            outcomes.append(replace(outcome, loss_sum=outcome.loss_sum.detach()))
        return outcomes

    def _seed(self, update: int, number: int) -> None:
        """Makes dropout a function of seed, update and the batch's place in it, whichever rank computes it."""
        place = update * self._conf.accum_grad + number * self._ranks.world_size + self._ranks.rank
        torch.manual_seed((self._conf.seed * 1_000_003 + place) % 2**63)

    def _total(self, batches: Sequence[Batch | None], outcomes: Sequence[Outcome], stop: bool) -> torch.Tensor:
        """float64 [HOST_NUMBERS + 1 + metrics]: host numbers, loss and metrics, summed over batches and ranks."""
        real = [batch for batch in batches if batch is not None]
        targets = sum(outcome.count for outcome in outcomes)
        tokens = sum(batch.num_tokens for batch in real)
        flops = sum(self._objective.flops(batch) for batch in real)
        host = torch.tensor([targets, tokens, flops, float(stop)], dtype=torch.float64)
        if self._ranks.device.type == "cuda":
            host = host.pin_memory().to(self._ranks.device, non_blocking=True)
        metrics = [name for name in self._objective.metrics if name in outcomes[0].sums]
        sums = [[outcome.loss_sum for outcome in outcomes]]
        sums += [[outcome.sums[name] for outcome in outcomes] for name in metrics]
        on_device = [torch.stack([value.double() for value in values]).sum(dim=0, keepdim=True) for values in sums]
        return self._ranks.sum_(torch.cat([host, *on_device]))


def _any_batch(data: TrainingData, epoch: int) -> Batch:
    """A batch of this rank, whichever. Raises CosyFlowError when it has none in an epoch."""
    for batch in data.batches(epoch, 0):
        if batch is not None:
            return batch
    raise CosyFlowError(
        "train_engine deepspeed, zero_optimization.stage 3: there are fewer batches in an epoch than processes; start"
        " fewer, or take a lower stage"
    )


def _losses(objective: Objective, batch: Batch | None, spare: Batch | None, device: torch.device) -> Iterator[Outcome]:
    """The objective's losses on a batch; of None those of the spare one, if there is one, counted as nothing."""
    if batch is not None or spare is None:
        return objective.losses(batch)
    return map(_nothing, objective.losses(spare.to(device, non_blocking=True)))


def _nothing(outcome: Outcome) -> Outcome:
    """An outcome with all its gradients and sums at 0."""
    sums = {name: torch.zeros_like(value) for name, value in outcome.sums.items()}
    return Outcome(outcome.loss_sum * 0.0, 0, sums)


def cross_validate(
    objective: Objective,
    data: TrainingData,
    ranks: Ranks,
    evaluate: Callable[[Callable[[], Outcome]], Outcome] = lambda compute: compute(),
    spare: Batch | None = None,
    steps: Steps | None = None,
) -> dict[str, float]:
    """The objective's means over the whole validation set, `loss` first, equal on every rank.

    Each rank computes its share; the sums are added up in float64, so that the number of ranks does not show.

    Args:
        evaluate: calls what it is given, as the engine wants it (see Engine.evaluate).
        spare: is computed, and not counted, where this rank has nothing to do; None computes nothing then.
        steps: notes what this rank is doing.
    """
    steps = steps or Steps()
    objective.eval()
    totals = torch.zeros(2 + len(objective.metrics), dtype=torch.float64, device=ranks.device)
    with torch.no_grad():
        for batch in data.validation_batches():
            steps.computes([batch])
            computed = batch or spare
            if computed is None:
                continue
            outcome = evaluate(partial(objective, computed.to(ranks.device, non_blocking=True)))
            if batch is not None:
                totals[0] += outcome.count
                totals[1:] += torch.stack(
                    [outcome.loss_sum.double(), *(outcome.sums[name].double() for name in objective.metrics)]
                )
    steps.waits()
    count, *sums = ranks.sum_(totals).tolist()
    if count == 0:
        raise CosyFlowError("the validation set has no utterance left after filtering; look at --cv_data and `filter`")
    return objective.means(count, dict(zip(("loss", *objective.metrics), sums, strict=True)))


def _check_same_batches(resumption: Resumption, data: TrainingData) -> None:
    """Within an epoch the next batch is only the right one if all batches are still the same."""
    position = resumption.position
    if position.batch and resumption.fingerprint != data.fingerprint(position.epoch):
        raise CosyFlowError(
            f"{resumption.name}: cannot go on within an epoch, because the data or the batch settings are not those of"
            f" that run; use them again, or start from its weights (--checkpoint {resumption.name}.pt with another"
            " --model_dir)"
        )
