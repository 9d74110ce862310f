"""What the training loop needs of a model and its data, whichever they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import torch

from cosyflow.config.training import TrainConf


class Batch(Protocol):
    """What one rank computes at once."""

    @property
    def utterances(self) -> list[str]:
        """Their names, for error messages."""

    @property
    def num_tokens(self) -> int:
        """Positions that are computed, without padding."""

    def to(self, device: torch.device, non_blocking: bool = False) -> Self: ...


@dataclass(frozen=True)
class Outcome:
    """The loss of a batch, as sums, so that it can be averaged over any number of batches and ranks."""

    loss_sum: torch.Tensor
    """[], sum over the batch's targets of what is minimised."""
    count: int
    """Targets of the batch, known without asking the device."""
    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    """[] each, further sums over the targets, e.g. how many were predicted correctly as `acc`."""


@dataclass(frozen=True)
class Turn:
    """A part of a model that one optimizer changes, in its turn of every update."""

    name: str
    """Among the parts of the model; "" where it is the whole model."""
    part: torch.nn.Module
    conf: TrainConf
    """Its optimizer, schedule and largest gradient."""
    first_update: int = 0
    """Before this update of the run it stays as it is."""


def zero_loss(part: torch.nn.Module) -> torch.Tensor:
    """A loss of 0, [], with a gradient of 0 for every weight that is trained."""
    return torch.stack([weight.sum() for weight in part.parameters() if weight.requires_grad]).sum() * 0.0


class Objective(torch.nn.Module, ABC):
    """A model and its loss: `objective(batch)` is an Outcome, by which epochs are compared.

    `model` is what checkpoints hold. `metrics` names the entries of `Outcome.sums`, always in this order.
    """

    model: torch.nn.Module
    metrics: tuple[str, ...] = ()

    def forward(self, batch: Batch | None) -> Outcome:
        """The outcome of a batch; of None, where a rank has nothing to do, a loss of 0 with zero gradients."""
        if batch is not None:
            return self.compute(batch)
        nothing = zero_loss(self.model)
        return Outcome(nothing, 0, {name: nothing.detach() for name in self.metrics})

    def turns(self, conf: TrainConf) -> Sequence[Turn]:
        """What an update changes, one part after the other; by default the whole model at once."""
        return (Turn("", self.model, conf),)

    def losses(self, batch: Batch | None) -> Iterator[Outcome]:
        """What each turn of an update minimises on a batch; the last one is also what is reported of the update.

        It goes on when the part of the turn before has been changed. All of its outcomes have the same count.
        """
        yield self(batch)

    @abstractmethod
    def compute(self, batch: Batch) -> Outcome:
        """The outcome of a batch on the model's device."""

    def means(self, count: float, sums: Mapping[str, float]) -> dict[str, float]:
        """What is reported of any number of batches: `loss` first, each a mean.

        Args:
            count: their targets.
            sums: of all of them, `loss` and the entries that `metrics` names.
        """
        return {name: value / max(count, 1.0) for name, value in sums.items()}

    def flops(self, batch: Batch) -> float:
        """Floating-point operations of the forward and backward pass over a batch; 0 where nobody has counted them."""
        return 0.0


class TrainingData(Protocol):
    """Batches for one rank. The ranks share out those of each update; None stands where there is none for one."""

    def num_batches(self, epoch: int) -> int:
        """Of the whole job."""

    def batches(self, epoch: int, start: int) -> Iterator[Batch | None]:
        """This rank's batches of an epoch, equally many on every rank: always the same ones in the same order.

        Args:
            start: how many of the whole job are left out, since they are done: those of whole updates.
        """

    def validation_batches(self) -> Iterator[Batch | None]:
        """This rank's share of the validation set: the same batches, with the same layouts, each time."""

    def fingerprint(self, epoch: int) -> str:
        """Changes when anything changes that decides which utterances are in which batch of which update."""
