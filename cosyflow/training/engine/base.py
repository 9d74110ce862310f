"""The seam between the training loop and what makes several processes train one model.

Every method is called on every rank, in the same order: an engine may communicate in any of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

from cosyflow.checkpoint.state import Snapshot
from cosyflow.training.objective import Outcome
from cosyflow.training.ranks import Ranks


class Learner(ABC):
    """A part of a model that one optimizer changes."""

    @abstractmethod
    def zero_grad(self) -> None:
        """Begins an update: what was added up before is forgotten."""

    @abstractmethod
    def forward(self, compute: Callable[[], Outcome], is_last: bool) -> Outcome:
        """What `compute` gives, which calls the part on a batch.

        Args:
            is_last: the update's last batch of this rank: its backward pass also adds the gradient up over the ranks.
        """

    @abstractmethod
    def backward(self, loss: torch.Tensor) -> None:
        """Adds the gradient of a loss, [], which is a sum over targets."""

    @abstractmethod
    def step(self, targets: torch.Tensor, limit: float, rate: float, failed: torch.Tensor) -> torch.Tensor:
        """Changes the part by its gradient, without waiting for the device.

        Args:
            targets: float64 [], those of all ranks; the gradient is divided by their number.
            limit: largest norm of the gradient after that.
            rate: learning rate.
            failed: float32 [], at 1 nothing is changed. It is set to 1 where the gradient is not finite.

        Returns:
            float32 [], the L2 norm of the gradient before it was limited.
        """


class Engine(ABC):
    """Trains parts of a model on all ranks together."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    @property
    def lockstep(self) -> bool:
        """Whether all ranks must call the model equally often: one with nothing to do computes an earlier batch."""
        return False

    def evaluate(self, compute: Callable[[], Outcome]) -> Outcome:
        """What `compute` gives, which calls the model on a batch without learning from it."""
        return compute()

    @abstractmethod
    def prepare(self, part: torch.nn.Module, optimizer: torch.optim.Optimizer, name: str) -> Learner:
        """Takes in a part, on the device of the ranks, and the optimizer of its weights.

        Args:
            name: of the part among those of the model; "" where it is the whole model.
        """

    @abstractmethod
    def save(self, model: torch.nn.Module) -> Snapshot:
        """The state of the model and of all optimizers, gathered from all ranks; it is whole on the first rank.

        Nothing is written: a writer does that, on the first rank alone.
        """

    @abstractmethod
    def load(self, model: torch.nn.Module, snapshot: Snapshot) -> None:
        """Puts the model and all optimizers back to a state; every rank has the whole of it."""
