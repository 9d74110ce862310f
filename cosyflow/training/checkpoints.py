"""Checkpoints of a training run: official weights with their losses beside them, and all that an exact resume needs.

`TAG.pt` holds the bare state dict with official keys, `TAG.state.pt` the optimizer and the position in the run,
`TAG.yaml` the settings and losses. Each file appears whole or not at all, and the yaml comes last: a checkpoint without
it is unfinished and is ignored. TAG is `epoch_{E}_whole` after an epoch and `epoch_{E}_step_{S}` within one, S updates
into the run.

Folders may also hold checkpoints of another trainer, which writes the same names: they are neither overwritten nor
removed. Known as ours is what has a state beside it, or a yaml with the key `cosyflow`, the version that wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import torch
import yaml

from cosyflow import __version__, storage
from cosyflow.errors import CosyFlowError

TAG = re.compile(r"epoch_(\d+)_(?:whole|step_(\d+))")
STATE_FORMAT = 1
OURS = "cosyflow"
"""Key of our yaml files; no official one has it."""
OURS_0_1 = frozenset({"compute_dtype", "keep_best", "world_size"})
"""What CosyFlow 0.1, which did not write OURS, wrote into every yaml file and nobody else does."""
STATES_KEPT = 2


class PlainLoader(yaml.SafeLoader):
    """Builds no Python objects: official yaml files can hold a pickled tensor, which is read as None."""


PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)


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
    def tag(self) -> str:
        """Name of a checkpoint here; at the start of an epoch it is that of the epoch before."""
        return f"epoch_{self.epoch}_step_{self.update}" if self.batch else f"epoch_{self.epoch - 1}_whole"

    def next_epoch(self) -> None:
        self.epoch += 1
        self.batch = 0
        self.epoch_targets = 0
        self.epoch_sums = {}


@dataclass(frozen=True)
class Checkpoint:
    """A finished checkpoint in `directory`.

    Attributes:
        record: its yaml; empty when that is not one.
        has_state: a run may be able to go on from it.
    """

    directory: str
    tag: str
    record: dict[str, Any]
    has_state: bool

    @property
    def weights(self) -> str:
        """URI of the weights."""
        return storage.join(self.directory, f"{self.tag}.pt")

    @property
    def state(self) -> str:
        """URI of the state."""
        return storage.join(self.directory, f"{self.tag}.state.pt")

    @property
    def is_ours(self) -> bool:
        """Whether CosyFlow wrote it, and may write it again or remove it."""
        return self.has_state or is_our_record(self.record)

    @property
    def is_whole_epoch(self) -> bool:
        return self.tag.endswith("_whole")

    @property
    def epoch(self) -> int:
        return int(self.tag.split("_")[1])

    @property
    def update(self) -> int:
        return int(self.record.get("step") or 0)

    @property
    def validation_loss(self) -> float | None:
        """Mean loss over the targets of the validation set; None within an epoch, and where it is not written."""
        losses = self.record.get("loss_dict")
        loss = losses.get("loss") if isinstance(losses, dict) else None
        return float(loss) if isinstance(loss, int | float) else None


def list_checkpoints(directory: str) -> list[Checkpoint]:
    """The finished checkpoints of a folder, whoever wrote them, oldest first."""
    names = {file.path for file in storage.list_files(directory)}
    found = []
    for name in names:
        tag = name.removesuffix(".yaml")
        if name.endswith(".yaml") and TAG.fullmatch(tag) and f"{tag}.pt" in names:
            record = read_record(storage.join(directory, name))
            found.append(Checkpoint(directory, tag, record, f"{tag}.state.pt" in names))
    return sorted(found, key=_age)


def _age(checkpoint: Checkpoint) -> tuple[int, bool, int]:
    """By the name alone, so that a broken yaml does not make a checkpoint older."""
    step = checkpoint.tag.rpartition("_")[2]
    return checkpoint.epoch, checkpoint.is_whole_epoch, 0 if checkpoint.is_whole_epoch else int(step)


def read_record(uri: str) -> dict[str, Any]:
    """The yaml beside a checkpoint; empty when it is not one."""
    try:
        record = yaml.load(storage.read_text(uri), Loader=PlainLoader)  # noqa: S506 - it is a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError):
        return {}
    is_one = isinstance(record, dict) and isinstance(record.get("epoch"), int) and isinstance(record.get("step"), int)
    return record if is_one else {}


def is_our_record(record: Mapping[str, Any]) -> bool:
    return OURS in record or record.keys() >= OURS_0_1


class CheckpointWriter:
    """Writes checkpoints of one run and removes those of ours that are no longer wanted. Only rank 0 has one.

    Args:
        directory: where they go.
        settings: entries of every yaml, as plain values.
        keep_last: so many newest epochs are kept ...
        keep_best: ... and so many with the lowest validation loss. The newest STATES_KEPT checkpoints and the newest
            whole epoch are kept with their states, from which a run goes on when the newest one is damaged, or when the
            number of ranks changes.
        start: update from which the run goes on: checkpoints within an epoch after it are of a way that was left.
    """

    def __init__(
        self, directory: str, settings: Mapping[str, Any], keep_last: int, keep_best: int, start: int = 0
    ) -> None:
        self.directory = directory
        self.settings = dict(settings)
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.start: int | None = start

    def save(
        self,
        weights: Mapping[str, torch.Tensor],
        optimizer: Mapping[str, Any],
        position: Position,
        fingerprint: str,
        record: Mapping[str, Any],
    ) -> Checkpoint:
        """Writes a checkpoint.

        Args:
            weights: state dict with official keys.
            optimizer: its state dict.
            position: where the run is.
            fingerprint: identifies the batches of the current epoch (see TrainingData.fingerprint).
            record: further entries of the yaml, e.g. `loss_dict`.

        Raises:
            CosyFlowError: a checkpoint of this name is there, and is not ours.
        """
        tag = position.tag
        names = {file.path for file in storage.list_files(self.directory)}
        if f"{tag}.pt" in names and not self._is_ours(tag, names):
            raise CosyFlowError(
                f"{self._uri(tag, '.pt')}: another trainer wrote it, and it is not overwritten; move it away, and the"
                " same command goes on from the last checkpoint"
            )
        storage.remove(self._uri(tag, ".yaml"))  # from here on an older one of this name is unfinished
        state = {
            "format": STATE_FORMAT,
            "position": asdict(position),
            "fingerprint": fingerprint,
            "optimizer": dict(optimizer),
        }
        self._write_tensors(self._uri(tag, ".state.pt"), state)  # first: what is left of a kill is known as ours
        self._write_tensors(self._uri(tag, ".pt"), dict(weights))
        epoch = position.epoch if position.batch else position.epoch - 1
        entries = {
            **self.settings,
            **record,
            OURS: __version__,
            "epoch": epoch,
            "step": position.update,
            "batch_idx": position.batch,
            "save_time": datetime.now().astimezone().strftime("%d/%m/%Y %H:%M:%S"),
        }
        storage.write_text(self._uri(tag, ".yaml"), yaml.safe_dump(entries, allow_unicode=True))
        self._remove_unwanted(tag)
        return Checkpoint(self.directory, tag, entries, has_state=True)

    def _uri(self, tag: str, suffix: str) -> str:
        return storage.join(self.directory, tag + suffix)

    def _write_tensors(self, uri: str, content: dict[str, Any]) -> None:
        with storage.open_write(uri) as stream:
            torch.save(content, stream)

    def _is_ours(self, tag: str, names: set[str]) -> bool:
        """Whether the files of a tag are ours, also when they are not all there."""
        has_record = f"{tag}.yaml" in names
        return f"{tag}.state.pt" in names or (has_record and is_our_record(read_record(self._uri(tag, ".yaml"))))

    def _remove_unwanted(self, written: str) -> None:
        ours = [checkpoint for checkpoint in list_checkpoints(self.directory) if checkpoint.is_ours]
        if self.start is not None:
            left = {c.tag for c in ours if not c.is_whole_epoch and c.update > self.start and c.tag != written}
            ours = [checkpoint for checkpoint in ours if checkpoint.tag not in left]
            self.start = None
        epochs = [checkpoint for checkpoint in ours if checkpoint.is_whole_epoch]
        with_state = [checkpoint for checkpoint in ours if checkpoint.has_state]
        whole = [checkpoint for checkpoint in with_state if checkpoint.is_whole_epoch]
        states = {checkpoint.tag for checkpoint in with_state[-STATES_KEPT:] + whole[-1:]}
        judged = [checkpoint for checkpoint in epochs if checkpoint.validation_loss is not None]
        best = sorted(judged, key=lambda checkpoint: checkpoint.validation_loss or 0.0)[: self.keep_best]
        wanted = states | {checkpoint.tag for checkpoint in epochs[-self.keep_last :] + best}

        names = {file.path for file in storage.list_files(self.directory)}
        for tag in sorted({name.partition(".")[0] for name in names} - wanted):
            if TAG.fullmatch(tag) and self._is_ours(tag, names):
                for suffix in (".pt", ".state.pt", ".yaml"):  # half-removed it is no checkpoint, and known as ours
                    storage.remove(self._uri(tag, suffix))
        for checkpoint in epochs:
            if checkpoint.has_state and checkpoint.tag in wanted - states:
                storage.remove(checkpoint.state)
