"""DeepSpeed: ZeRO shares out the optimizer (1), the gradients too (2) and the weights too (3) among the ranks.

DeepSpeed keeps float32 weights here, and the models compute in the recipe's type as they do under torch_ddp: weights of
another type would need a float32 copy. What is saved is what torch_ddp saves, so that a run goes on under either engine
and with any number of ranks; DeepSpeed's own checkpoints, which are read by unpickling, are never loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from cosyflow.checkpoint.state import Snapshot
from cosyflow.training.engine.base import Engine, Learner
from cosyflow.training.engine.collected import put_optimizer, put_weights, whole_optimizer, whole_weights
from cosyflow.training.engine.operators import prepare_operators
from cosyflow.training.objective import Outcome
from cosyflow.training.optimizer import scale_and_clip
from cosyflow.training.ranks import Ranks

OWN_SETTINGS: Mapping[str, Any] = {
    "train_micro_batch_size_per_gpu": 1,  # a batch is packed by the recipe, and to DeepSpeed one thing
    "gradient_accumulation_steps": 1,  # the last update of an epoch has fewer; each batch says whether it is the last
    "gradient_clipping": 0.0,  # given with every step
    "zero_allow_untested_optimizer": True,  # torch's own Adam
    "zero_force_ds_cpu_optimizer": False,  # which is fused on the host too, and rounds as it does under torch_ddp
}
"""What the engine itself decides of DeepSpeed's settings."""


class DeepSpeed(Engine):
    """Trains a whole model by ZeRO.

    Args:
        ranks: in a process group, also where there is one alone.
        settings: DeepSpeed's own, without what the recipe says.
        saves_optimizer: without, a run goes on from its weights and its position with a fresh optimizer.
        log: takes a line for the user.
    """

    def __init__(
        self, ranks: Ranks, settings: Mapping[str, Any], saves_optimizer: bool, log: Callable[[str], None]
    ) -> None:
        super().__init__(ranks)
        self._settings = {**settings, **OWN_SETTINGS}
        self._stage = int(self._settings.get("zero_optimization", {}).get("stage", 0))
        self._saves_optimizer = saves_optimizer
        self._log = log
        self._learner: _Sharded | None = None

    @property
    def lockstep(self) -> bool:
        return self._stage == 3  # every layer's weights are gathered by all ranks when one computes it

    def prepare(self, part: nn.Module, optimizer: torch.optim.Optimizer, name: str) -> Learner:
        if name:
            raise ValueError(f"{name}: DeepSpeed trains a whole model, not a part of it")
        logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
        prepare_operators(self.ranks)
        self._learner = _Sharded(part, optimizer, self.ranks, self._settings, self._stage)
        return self._learner

    def evaluate(self, compute: Callable[[], Outcome]) -> Outcome:
        return self._prepared.forward(compute, is_last=True)

    def save(self, model: nn.Module) -> Snapshot:
        learner, is_first = self._prepared, self.ranks.is_first
        weights = whole_weights(model, is_first)
        optimizer: Mapping[str, Any] = {}
        if self._saves_optimizer:
            optimizer = whole_optimizer(learner.base, learner.weights, learner.groups, is_first)
        return Snapshot(weights, optimizer)

    def load(self, model: nn.Module, snapshot: Snapshot) -> None:
        learner = self._prepared
        put_weights(model, snapshot.weights, learner.zero)
        if snapshot.optimizer:
            put_optimizer(learner.base, learner.weights, snapshot.optimizer, learner.zero)
        else:
            self._log("the checkpoint has no optimizer: it begins anew, from the weights and at the position")

    @property
    def _prepared(self) -> _Sharded:
        if self._learner is None:
            raise ValueError("no model has been prepared")
        return self._learner


class _Sharded(Learner):
    """This rank's share of a model.

    Attributes:
        base: torch's optimizer, over whatever DeepSpeed has put in the place of the weights.
        zero: DeepSpeed's optimizer around it; None for ZeRO 0, which has none.
        weights: those that are trained, in the order of the optimizer.
        groups: the optimizer's groups as torch saves them, before DeepSpeed changed them.
    """

    def __init__(
        self,
        part: nn.Module,
        optimizer: torch.optim.Optimizer,
        ranks: Ranks,
        settings: Mapping[str, Any],
        stage: int,
    ) -> None:
        import deepspeed

        self.base = optimizer
        self.weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self.groups = optimizer.state_dict()["param_groups"]
        self._world_size = ranks.world_size
        self._calls = _Calls(part)
        self._engine, *_ = deepspeed.initialize(
            model=self._calls, optimizer=optimizer, model_parameters=self.weights, config=dict(settings)
        )
        self.zero = self._engine.optimizer if stage else None
        if stage >= 2:
            _InOrder(self.zero, self.weights)

    def zero_grad(self) -> None:
        if self.zero is None:
            self._engine.zero_grad()  # ZeRO forgets its gradients in each step

    def forward(self, compute: Callable[[], Outcome], is_last: bool) -> Outcome:
        self._engine.set_gradient_accumulation_boundary(is_last)
        self._engine(compute)
        return self._calls.take()

    def backward(self, loss: torch.Tensor) -> None:
        self._engine.backward(loss, scale_wrt_gas=False)

    def step(self, targets: torch.Tensor, limit: float, rate: float, failed: torch.Tensor) -> torch.Tensor:
        if failed:  # waits for the device, as ZeRO does anyway
            return torch.full_like(failed, torch.nan)
        for group in self.base.param_groups:
            group["lr"] = rate
        # DeepSpeed leaves the mean over the ranks, hence the number of them
        targets_of_a_rank = float(targets.clamp(min=1.0)) / self._world_size
        norm = self._step_alone(targets_of_a_rank, limit) if self.zero is None else self._step(targets_of_a_rank, limit)
        failed.copy_((~torch.isfinite(norm)).float())
        return norm.to(failed)

    def _step(self, divisor: float, limit: float) -> torch.Tensor:
        """A step of ZeRO, which divides the gradient by its loss scale before it limits and counts it."""
        assert self.zero is not None  # noqa: S101
        self.zero.loss_scale, self.zero.clip_grad = divisor, limit
        self._engine.step()  # changes nothing where the gradient is not finite
        self.zero.loss_scale = 1.0  # for the next backward pass
        return torch.as_tensor(self.zero._global_grad_norm)

    def _step_alone(self, divisor: float, limit: float) -> torch.Tensor:
        """A step where every rank has the whole gradient."""
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        norm = scale_and_clip(gradients, torch.tensor(1.0 / divisor, device=gradients[0].device), limit)
        if torch.isfinite(norm):
            self._engine.step()
        return norm


class _InOrder:
    """Lets ZeRO add gradients up over the ranks in one order on all of them.

    It puts them into buckets as they come in a backward pass. PyTorch promises no order of those that are ready at the
    same moment, and a weight and its bias were seen to change places with the size of a batch: ZeRO 2 then added the
    gradient of one on this rank to that of the other on the next (DeepSpeed 0.19.8).
    """

    def __init__(self, zero: Any, weights: Sequence[nn.Parameter]) -> None:
        self._places = {id(weight): place for place, weight in enumerate(reversed(weights))}
        self._ready: dict[int, tuple[Any, ...]] = {}
        self._next = 0
        self._reduce = zero.reduce_ready_partitions_and_remove_grads
        self._end = zero.independent_gradient_partition_epilogue
        zero.reduce_ready_partitions_and_remove_grads = self._take
        zero.independent_gradient_partition_epilogue = self._finish

    def _take(self, weight: nn.Parameter, *more: Any) -> None:
        self._ready[self._places[id(weight)]] = (weight, *more)
        while self._next in self._ready:
            self._reduce(*self._ready.pop(self._next))
            self._next += 1

    def _finish(self) -> None:
        """What waits for a weight that had no gradient goes too."""
        for place in sorted(self._ready):
            self._reduce(*self._ready[place])
        self._ready.clear()
        self._next = 0
        self._end()


class _Calls(nn.Module):
    """Calls what it is given, and keeps the outcome: DeepSpeed is to see the loss alone."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self._outcome: Outcome | None = None

    def forward(self, compute: Callable[[], Outcome]) -> torch.Tensor:
        self._outcome = compute()
        return self._outcome.loss_sum

    def take(self) -> Outcome:
        """The last outcome, which is forgotten here."""
        outcome, self._outcome = self._outcome, None
        assert outcome is not None  # noqa: S101
        return outcome
