"""One change of the weights: gradients of some batches on every rank, clipped, then the optimizer's step.

The loss of an update is the mean over all targets of all its batches on all ranks: every target weighs the same,
however the utterances fell into batches. Gradients of the *sums* are accumulated and divided by the number of targets
at the end, when that number has been added up over the ranks on the device. Nothing here waits for the device: on CUDA
what happened is read one update later, and a loss or gradient that is not finite turns this and all following optimizer
steps into nothing on the device itself, so that reading late does no harm.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch.nn.parallel import DistributedDataParallel

from cosyflow.config.training import TrainConf
from cosyflow.errors import NotFiniteError
from cosyflow.training.objective import Batch, Objective, Outcome
from cosyflow.training.ranks import Ranks

CLIP_EPSILON = 1e-6
"""Added to the norm before dividing by it, as torch.nn.utils.clip_grad_norm_ does."""
_HOST_NUMBERS = 4
"""Targets, tokens, operations and stop requests come from the host; loss and metrics follow them in the totals."""


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


def build_optimizer(model: torch.nn.Module, conf: TrainConf) -> torch.optim.Optimizer:
    """Adam or AdamW over the parameters that are trained, in its fused form: one pass over the weights."""
    kind = torch.optim.AdamW if conf.optim == "adamw" else torch.optim.Adam
    settings = conf.optim_conf
    chosen: dict[str, Any] = {"betas": settings.betas, "eps": settings.eps, "weight_decay": settings.weight_decay}
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = kind(weights, lr=settings.lr, fused=True, **chosen)

    def keep_chosen(loaded: torch.optim.Optimizer) -> None:
        """A loaded state brings the settings of the run that saved it; those of this run stay."""
        for group in loaded.param_groups:
            group.update(chosen)

    optimizer.register_load_state_dict_post_hook(keep_chosen)
    return optimizer


def scale_and_clip(gradients: Sequence[torch.Tensor], scale: torch.Tensor, limit: float) -> torch.Tensor:
    """Multiplies the gradients by `scale`, then limits their joint norm, without waiting for the device.

    Args:
        gradients: changed in place.
        scale: [].
        limit: largest norm after scaling.

    Returns:
        [], the joint L2 norm after scaling and before clipping.
    """
    norm = torch.nn.utils.get_total_norm(gradients) * scale
    factor = scale * (limit / (norm + CLIP_EPSILON)).clamp(max=1.0)
    torch._foreach_mul_(list(gradients), factor)
    return norm


class OptimizerState(Protocol):
    """What of an optimizer goes into a checkpoint."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class UpdateStrategy(ABC):
    """Makes updates of the weights of an objective's model, and reports them when they are known to be finished.

    Attributes:
        optimizer: its state belongs into a checkpoint.
    """

    optimizer: OptimizerState

    def __init__(self, objective: Objective, conf: TrainConf, ranks: Ranks) -> None:
        self.objective = objective
        self.conf = conf
        self.ranks = ranks
        self._failed = torch.zeros((), device=ranks.device)
        self._outcomes: deque[_Pending] = deque()

    @abstractmethod
    def update(self, batches: Sequence[Batch | None], update: int, rate: float, stop: bool) -> list[UpdateReport]:
        """Changes the weights once.

        Args:
            batches: this rank's batches; equally many on every rank.
            update: number of the update in the whole training run.
            rate: learning rate.
            stop: this rank was asked to end; the ranks learn of it together from the report.

        Returns:
            The updates that are known to be finished: on CUDA the one before, elsewhere this one.

        Raises:
            NotFiniteError: loss or gradient are not finite; names the utterances. The weights are as before it.
        """

    def flush(self) -> list[UpdateReport]:
        """Waits for the device; the updates that have not been reported yet."""
        return self._finished(leave=0)

    def _seed(self, update: int, number: int) -> None:
        """Makes dropout a function of seed, update, batch and rank: a resumed run draws what the first would have."""
        place = (update * self.conf.accum_grad + number) * self.ranks.world_size + self.ranks.rank
        torch.manual_seed((self.conf.seed * 1_000_003 + place) % 2**63)

    def _settle(
        self,
        update: int,
        rate: float,
        batches: Sequence[Batch | None],
        outcomes: Sequence[Outcome],
        totals: torch.Tensor,
        norm: torch.Tensor,
    ) -> list[UpdateReport]:
        """Notes an update whose numbers are on their way, and reports those that have arrived."""
        values = torch.cat([totals, norm.double()[None], self._failed.double()[None]])
        self._outcomes.append(_Pending(update, rate, batches, outcomes, _HostCopy(values)))
        return self._finished(leave=1 if self.ranks.device.type == "cuda" else 0)

    def _total(self, numbers: Sequence[float], outcomes: Sequence[Outcome]) -> torch.Tensor:
        """float64 [numbers + 1 + metrics]: host numbers, loss and metrics, summed over batches and ranks."""
        host = torch.tensor(numbers, dtype=torch.float64)
        if self.ranks.device.type == "cuda":
            host = host.pin_memory().to(self.ranks.device, non_blocking=True)
        sums = torch.stack([outcome.loss_sum.double() for outcome in outcomes]).sum(dim=0, keepdim=True)
        for name in self.objective.metrics:
            metric = torch.stack([outcome.sums[name].double() for outcome in outcomes]).sum(dim=0, keepdim=True)
            sums = torch.cat([sums, metric])
        return self.ranks.sum_(torch.cat([host, sums]))

    def _finished(self, leave: int) -> list[UpdateReport]:
        reports = []
        while len(self._outcomes) > leave:
            reports.append(self._report(self._outcomes.popleft()))
        return reports

    def _report(self, pending: _Pending) -> UpdateReport:
        *totals, norm, failed = pending.values.wait()
        targets, tokens, flops, stops, loss, *metrics = totals
        if failed:
            raise NotFiniteError(self._describe_failure(pending), pending.update)
        sums = dict(zip(("loss", *self.objective.metrics), (loss, *metrics), strict=True))
        return UpdateReport(
            update=pending.update,
            rate=pending.rate,
            grad_norm=norm,
            num_targets=int(targets),
            num_tokens=int(tokens),
            flops=flops,
            means=self.objective.means(targets, sums),
            stop_requested=stops > 0,
        )

    def _describe_failure(self, pending: _Pending) -> str:
        """Names the utterances of the batches whose loss is not finite, or all when only the gradient is not."""
        mine = [
            (batch.utterances, bool(torch.isfinite(outcome.loss_sum)))
            for batch, outcome in zip(pending.batches, pending.outcomes, strict=True)
            if batch is not None
        ]
        everything = [entry for rank in self.ranks.gather(mine) for entry in rank]
        bad = [name for names, finite in everything if not finite for name in names]
        kind = "loss" if bad else "gradient"
        names = bad or [name for names, _ in everything for name in names]
        listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        return (
            f"update {pending.update}: the {kind} is not finite; its utterances are {listed}. The weights are as before"
            " it; look at these utterances, or lower the learning rate"
        )


class Updater(UpdateStrategy):
    """One optimizer for the whole model, and one loss."""

    optimizer: torch.optim.Optimizer

    def __init__(self, objective: Objective, conf: TrainConf, ranks: Ranks) -> None:
        super().__init__(objective, conf, ranks)
        self.optimizer = build_optimizer(objective.model, conf)
        self._weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        self._parallel: Objective | DistributedDataParallel = objective
        if ranks.world_size > 1:
            self._parallel = DistributedDataParallel(
                objective,
                device_ids=[ranks.device] if ranks.device.type == "cuda" else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )

    def update(self, batches: Sequence[Batch | None], update: int, rate: float, stop: bool) -> list[UpdateReport]:
        self.optimizer.zero_grad(set_to_none=True)
        outcomes = []
        for number, batch in enumerate(batches):
            self._seed(update, number)
            outcomes.append(self._backward(batch, is_last=number == len(batches) - 1))
        real = [batch for batch in batches if batch is not None]
        tokens = sum(batch.num_tokens for batch in real)
        flops = sum(self.objective.flops(batch) for batch in real)
        targets = sum(outcome.count for outcome in outcomes)
        totals = self._total([targets, tokens, flops, float(stop)], outcomes)
        # DistributedDataParallel leaves the mean over the ranks, hence the factor
        scale = (self.ranks.world_size / totals[0].clamp(min=1.0)).float()
        norm = scale_and_clip(
            [weight.grad for weight in self._weights if weight.grad is not None], scale, self.conf.grad_clip
        )
        self._failed = torch.maximum(self._failed, (~torch.isfinite(totals[_HOST_NUMBERS] + norm)).float())
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.found_inf = self._failed  # type: ignore[attr-defined]  # fused kernels leave the weights alone at 1
        self.optimizer.step()
        return self._settle(update, rate, batches, outcomes, totals, norm)

    def _backward(self, batch: Batch | None, is_last: bool) -> Outcome:
        if batch is not None:
            batch = batch.to(self.ranks.device, non_blocking=True)
        postpone_sum = not is_last and isinstance(self._parallel, DistributedDataParallel)
        with self._parallel.no_sync() if postpone_sum else nullcontext():  # type: ignore[operator]
            outcome: Outcome = self._parallel(batch)
            outcome.loss_sum.backward()
        return replace(outcome, loss_sum=outcome.loss_sum.detach())


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


@dataclass(frozen=True)
class _Pending:
    update: int
    rate: float
    batches: Sequence[Batch | None]
    outcomes: Sequence[Outcome]
    values: _HostCopy
