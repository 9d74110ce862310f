"""Data parallelism of PyTorch: every rank holds the whole model and optimizer, and gradients are added up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch.nn.parallel import DistributedDataParallel

from cosyflow.checkpoint.state import Snapshot, on_host
from cosyflow.training.engine.base import Engine, Learner
from cosyflow.training.objective import Outcome
from cosyflow.training.optimizer import scale_and_clip
from cosyflow.training.ranks import Ranks


class TorchDDP(Engine):
    """`torch.nn.parallel.DistributedDataParallel`, or plain PyTorch on one rank."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(ranks)
        self._optimizers: dict[str, torch.optim.Optimizer] = {}

    def prepare(self, part: torch.nn.Module, optimizer: torch.optim.Optimizer, name: str) -> Learner:
        self._optimizers[name] = optimizer
        return _Replica(part, optimizer, self.ranks)

    def save(self, model: torch.nn.Module) -> Snapshot:
        if not self.ranks.is_first:
            return Snapshot({}, {})
        states = {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()}
        return Snapshot(*on_host((model.state_dict(), states.get("", states))))

    def load(self, model: torch.nn.Module, snapshot: Snapshot) -> None:
        model.load_state_dict(dict(snapshot.weights))
        if not snapshot.optimizer:
            return  # of a run that saved its weights alone
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(dict(snapshot.optimizer[name] if name else snapshot.optimizer))


class _Replica(Learner):
    """This rank's copy of a part."""

    def __init__(self, part: torch.nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
        self._optimizer = optimizer
        self._weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self._world_size = ranks.world_size
        self._parallel: DistributedDataParallel | None = None
        if ranks.world_size > 1:
            self._parallel = DistributedDataParallel(
                _Calls(part),
                device_ids=[ranks.device] if ranks.device.type == "cuda" else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )

    def zero_grad(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)

    def forward(self, compute: Callable[[], Outcome], is_last: bool) -> Outcome:
        if self._parallel is None:
            return compute()
        with nullcontext() if is_last else self._parallel.no_sync():
            outcome: Outcome = self._parallel(compute)
        return outcome

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def step(self, targets: torch.Tensor, limit: float, rate: float, failed: torch.Tensor) -> torch.Tensor:
        # DistributedDataParallel leaves the mean over the ranks, hence the factor
        scale = (self._world_size / targets.clamp(min=1.0)).float()
        norm = scale_and_clip([weight.grad for weight in self._weights if weight.grad is not None], scale, limit)
        failed.copy_(torch.maximum(failed, (~torch.isfinite(norm)).float()))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.found_inf = failed  # type: ignore[attr-defined]  # at 1 fused kernels change no weight
        self._optimizer.step()
        return norm


class _Calls(torch.nn.Module):
    """Calls what it is given.

    A turn of adversarial training is more than one call of the part that it changes, and calls other parts too; so
    that one forward pass of DistributedDataParallel is the whole turn, its input is the turn itself.
    """

    def __init__(self, part: torch.nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, compute: Callable[[], Outcome]) -> Outcome:
        return compute()
