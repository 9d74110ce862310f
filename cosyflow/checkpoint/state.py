"""What an exact resume needs: weights, the optimizer's state, and the position in the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from cosyflow import storage
from cosyflow.checkpoint.files import UnreadableError, read_file
from cosyflow.checkpoint.folder import RECORD, STATE, Checkpoint
from cosyflow.errors import CosyFlowError
from cosyflow.unexpected import describe

STATE_FORMAT = 1


@dataclass
class Position:
    """How far a run is, with the sums that its epoch's means are made of.

    `epoch` is the one being trained, `batch` the number of each rank's batches in it that are done, `update` the number
    of updates done in the whole run.
    """

    epoch: int = 0
    batch: int = 0
    update: int = 0
    epoch_targets: int = 0
    epoch_sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    """Spent in training so far, over all starts."""
    epochs: list[dict[str, float]] = field(default_factory=list)
    """Of each finished epoch: mean training and validation losses."""
    log_targets: int = 0
    log_sums: dict[str, float] = field(default_factory=dict)
    """Of the updates since the last entry in the metrics, so that a run in two parts logs what one in one does."""
    last_update: dict[str, float] = field(default_factory=dict)
    """Learning rate (`lr`) and gradient norm (`grad_norm`) of the last update, for a checkpoint's record."""

    @property
    def name(self) -> str:
        """Name of a checkpoint here; at the start of an epoch it is that of the epoch before."""
        return f"epoch_{self.epoch}_step_{self.update}" if self.batch else f"epoch_{self.epoch - 1}_whole"

    def add(self, targets: int, means: Mapping[str, float], last_update: dict[str, float]) -> None:
        """Takes in an update: its targets, its means over them, and what a checkpoint's record says of the last one."""
        self.last_update = last_update
        self.epoch_targets += targets
        self.log_targets += targets
        for name, mean in means.items():
            for sums in (self.epoch_sums, self.log_sums):
                sums[name] = sums.get(name, 0.0) + mean * targets

    def end_interval(self) -> dict[str, float]:
        """The means since the last entry in the metrics; a new interval begins."""
        means = {name: value / max(self.log_targets, 1) for name, value in self.log_sums.items()}
        self.log_targets, self.log_sums = 0, {}
        return means

    def end_epoch(self, validation: Mapping[str, float]) -> dict[str, float]:
        """Notes the epoch with its validation losses in `epochs`; its training means."""
        means = {name: value / max(self.epoch_targets, 1) for name, value in self.epoch_sums.items()}
        self.epochs.append({**means, **{f"cv_{name}": value for name, value in validation.items()}})
        return means

    def next_epoch(self) -> None:
        self.epoch += 1
        self.batch = 0
        self.epoch_targets = 0
        self.epoch_sums = {}


@dataclass(frozen=True)
class Snapshot:
    """A model at one moment, gathered from all ranks: on the host, in memory that nothing else changes.

    It is whole on the first rank, and empty on the others.
    """

    weights: Mapping[str, torch.Tensor]
    """State dict with the official keys."""
    optimizer: Mapping[str, Any]
    """State dict of the optimizer, or of each by its name."""


@dataclass(frozen=True)
class Resumption:
    """What a run goes on from."""

    snapshot: Snapshot
    position: Position
    fingerprint: str
    """Identifies the batches of the position's epoch (see TrainingData.fingerprint)."""
    name: str
    """Of the checkpoint."""


def on_host(content: Any) -> Any:
    """A copy of the tensors in dictionaries, lists and tuples, on the host; a tensor of two names stays one."""
    copies: dict[tuple[int, torch.Size, tuple[int, ...]], torch.Tensor] = {}

    def copied(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            place = (value.data_ptr(), value.shape, value.stride())
            if place not in copies:
                copies[place] = value.detach().to("cpu", copy=True)
            return copies[place]
        if isinstance(value, Mapping):
            return {key: copied(entry) for key, entry in value.items()}
        return type(value)(map(copied, value)) if isinstance(value, list | tuple) else value

    return copied(content)


class UnusableError(CosyFlowError):
    """A checkpoint that a run cannot go on from, and why."""


def state_of(snapshot: Snapshot, position: Position, fingerprint: str) -> dict[str, Any]:
    """The content of a state file; the weights have a file of their own."""
    return {
        "format": STATE_FORMAT,
        "position": asdict(position),
        "fingerprint": fingerprint,
        "optimizer": dict(snapshot.optimizer),
    }


def load(checkpoint: Checkpoint, verify: bool = True) -> Resumption:
    """Reads all that an exact resume needs.

    Args:
        verify: looks for damage inside the files too, which takes another reading.

    Raises:
        UnusableError: the state is not there, or files are damaged or of another version of CosyFlow.
    """
    if not checkpoint.has_state:
        raise UnusableError(f"{checkpoint.name}{STATE} is not there")
    if not checkpoint.record:
        raise UnusableError(f"{checkpoint.name}{RECORD} is not the record of a checkpoint")
    state = _read(checkpoint.state, verify)
    if state.get("format") != STATE_FORMAT:
        raise UnusableError(f"{checkpoint.name}{STATE} is of another version of CosyFlow")
    from pydantic import TypeAdapter  # a training imports with PyTorch, transformers and numpy alone

    try:
        position = TypeAdapter(Position).validate_python(asdict(Position(**state["position"])))
        fingerprint, optimizer = str(state["fingerprint"]), dict(state["optimizer"])
    except (KeyError, TypeError, ValueError) as error:
        raise UnusableError(
            f"{checkpoint.name}{STATE} is of another version of CosyFlow ({describe(error)})"
        ) from error
    snapshot = Snapshot(_read(checkpoint.weights, verify), optimizer)
    return Resumption(snapshot, position, fingerprint, checkpoint.name)


def _read(uri: str, verify: bool) -> dict[str, Any]:
    with storage.local_copy(uri) as path:
        try:
            content = read_file(path, verified=verify)
        except UnreadableError as error:
            raise UnusableError(f"{path.name} is damaged or not a checkpoint ({error.reason})") from error
    if not isinstance(content, dict):
        raise UnusableError(f"{path.name} is damaged or not a checkpoint (it holds a {type(content).__name__})")
    return content
