"""What updates did, read from the device when it has arrived.

Nothing here waits for the device: on CUDA what happened is read one update later, and a loss or gradient that is not
finite turns this and all following optimizer steps into nothing on the device itself, so that reading late does no
harm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cosyflow.errors import NotFiniteError
from cosyflow.training.objective import Batch, Objective, Outcome
from cosyflow.training.ranks import Ranks

HOST_NUMBERS = 4
"""Targets, tokens, operations and stop requests come from the host; loss and metrics follow them in the totals."""
_NAMED = 8


@dataclass(frozen=True)
class UpdateReport:
    """What an update did, over all ranks. `means` are those of the objective, e.g. `loss`."""

    update: int
    rate: float
    grad_norm: float
    num_targets: int
    num_tokens: int
    flops: float
    means: dict[str, float]
    stop_requested: bool


@dataclass(frozen=True)
class Pending:
    """An update whose numbers are on their way.

    `totals` is float64 [HOST_NUMBERS + 1 + metrics] over all ranks, `norm` and `failed` are [].
    """

    update: int
    rate: float
    batches: Sequence[Batch | None]
    outcomes: Sequence[Outcome]
    totals: torch.Tensor
    norm: torch.Tensor
    failed: torch.Tensor


class Reports:
    """Takes updates in their order, and gives a report of each when it is known to be finished."""

    def __init__(self, objective: Objective, ranks: Ranks) -> None:
        self._objective = objective
        self._ranks = ranks
        self._waiting: deque[tuple[Pending, _HostCopy]] = deque()

    def add(self, pending: Pending) -> list[UpdateReport]:
        """Notes an update; the reports of those that have arrived: on CUDA the one before, elsewhere this one.

        Raises:
            NotFiniteError: loss or gradient of one were not finite; names the utterances.
        """
        values = torch.cat([pending.totals, pending.norm.double()[None], pending.failed.double()[None]])
        self._waiting.append((pending, _HostCopy(values)))
        return self._finished(leave=1 if self._ranks.device.type == "cuda" else 0)

    def rest(self) -> list[UpdateReport]:
        """Waits for the device; the reports that have not been given yet."""
        return self._finished(leave=0)

    def _finished(self, leave: int) -> list[UpdateReport]:
        reports = []
        while len(self._waiting) > leave:
            reports.append(self._report(*self._waiting.popleft()))
        return reports

    def _report(self, pending: Pending, values: _HostCopy) -> UpdateReport:
        *totals, norm, failed = values.wait()
        targets, tokens, flops, stops, *sums = totals
        if failed:
            raise NotFiniteError(self._describe_failure(pending), pending.update)
        named = dict(zip(("loss", *self._objective.metrics), sums, strict=True))
        return UpdateReport(
            update=pending.update,
            rate=pending.rate,
            grad_norm=norm,
            num_targets=int(targets),
            num_tokens=int(tokens),
            flops=flops,
            means=self._objective.means(targets, named),
            stop_requested=stops > 0,
        )

    def _describe_failure(self, pending: Pending) -> str:
        """Names the utterances of the batches whose loss is not finite, or all when only the gradient is not."""
        mine = [
            (batch.utterances, bool(torch.isfinite(outcome.loss_sum)))
            for batch, outcome in zip(pending.batches, pending.outcomes, strict=True)
            if batch is not None
        ]
        everything = [entry for rank in self._ranks.gather(mine) for entry in rank]
        bad = [name for names, finite in everything if not finite for name in names]
        kind = "loss" if bad else "gradient"
        names = bad or [name for names, _ in everything for name in names]
        listed = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
        return (
            f"update {pending.update}: the {kind} is not finite; its utterances are {listed}. The weights are as before"
            " it; look at these utterances, or lower the learning rate"
        )


class _HostCopy:
    """A small device tensor on its way to the host."""

    def __init__(self, values: torch.Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        else:
            self._host = values

    def wait(self) -> list[float]:
        if self._arrived is not None:
            self._arrived.synchronize()
        numbers: list[float] = self._host.tolist()
        return numbers
