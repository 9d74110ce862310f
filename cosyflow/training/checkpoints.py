"""Checkpoints of a training run: official weights with their losses beside them, and all that an exact resume needs.

`TAG.pt` holds the bare state dict with official keys, `TAG.state.pt` the optimizer and the position in the run,
`TAG.yaml` the settings and losses. Each file appears whole or not at all, and the yaml comes last: a checkpoint without
it is unfinished and is ignored. TAG is `epoch_{E}_whole` after an epoch and `epoch_{E}_step_{S}` within one, S updates
into the run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import torch
import yaml

from cosyflow import storage
from cosyflow.errors import CosyFlowError

TAG = re.compile(r"epoch_(\d+)_(?:whole|step_(\d+))")
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
    """A finished checkpoint in `directory`. `record` is its yaml; `has_state` tells whether a run can go on from it."""

    directory: str
    tag: str
    record: dict[str, Any]
    has_state: bool

    @property
    def weights(self) -> str:
        """URI of the weights."""
        return storage.join(self.directory, f"{self.tag}.pt")

    @property
    def is_whole_epoch(self) -> bool:
        return self.tag.endswith("_whole")

    @property
    def epoch(self) -> int:
        return int(self.record["epoch"])

    @property
    def update(self) -> int:
        return int(self.record["step"])

    @property
    def validation_loss(self) -> float | None:
        """Mean loss over the targets of the validation set; None within an epoch."""
        losses = self.record.get("loss_dict")
        return None if losses is None else float(losses["loss"])


def list_checkpoints(directory: str) -> list[Checkpoint]:
    """The finished checkpoints of a folder, oldest first."""
    names = {file.path for file in storage.list_files(directory)}
    found = []
    for name in names:
        tag = name.removesuffix(".yaml")
        if name.endswith(".yaml") and TAG.fullmatch(tag) and f"{tag}.pt" in names:
            record = read_record(storage.join(directory, name))
            found.append(Checkpoint(directory, tag, record, f"{tag}.state.pt" in names))
    return sorted(found, key=lambda checkpoint: (checkpoint.update, checkpoint.is_whole_epoch))


def read_record(uri: str) -> dict[str, Any]:
    """The yaml beside a checkpoint. Raises CosyFlowError when it is not one."""
    try:
        record = yaml.safe_load(storage.read_text(uri))
    except yaml.YAMLError as error:
        raise CosyFlowError(f"{uri}: not the record of a checkpoint (unsafe or broken YAML)") from error
    if not isinstance(record, dict) or not {"epoch", "step"} <= record.keys():
        raise CosyFlowError(f"{uri}: not the record of a checkpoint (it lacks epoch and step)")
    return record


class CheckpointWriter:
    """Writes checkpoints of one run and removes those that are no longer wanted. Only rank 0 has one.

    Args:
        directory: where they go.
        settings: entries of every yaml, as plain values.
        keep_last: so many newest epochs are kept ...
        keep_best: ... and so many with the lowest validation loss. Only the newest checkpoint keeps its training state,
            and one within an epoch is removed when a newer one is there.
    """

    def __init__(self, directory: str, settings: Mapping[str, Any], keep_last: int, keep_best: int) -> None:
        self.directory = directory
        self.settings = dict(settings)
        self.keep_last = keep_last
        self.keep_best = keep_best

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
        """
        tag = position.tag
        storage.remove(self._uri(tag, ".yaml"))  # from here on an older one of this name is unfinished
        self._write_tensors(self._uri(tag, ".pt"), dict(weights))
        state = {
            "format": STATE_FORMAT,
            "position": asdict(position),
            "fingerprint": fingerprint,
            "optimizer": dict(optimizer),
        }
        self._write_tensors(self._uri(tag, ".state.pt"), state)
        epoch = position.epoch if position.batch else position.epoch - 1
        entries = {
            **self.settings,
            **record,
            "epoch": epoch,
            "step": position.update,
            "batch_idx": position.batch,
            "save_time": datetime.now().astimezone().strftime("%d/%m/%Y %H:%M:%S"),
        }
        storage.write_text(self._uri(tag, ".yaml"), yaml.safe_dump(entries, allow_unicode=True))
        self._remove_unwanted()
        return Checkpoint(self.directory, tag, entries, has_state=True)

    def _uri(self, tag: str, suffix: str) -> str:
        return storage.join(self.directory, tag + suffix)

    def _write_tensors(self, uri: str, content: dict[str, Any]) -> None:
        with storage.open_write(uri) as stream:
            torch.save(content, stream)

    def _remove_unwanted(self) -> None:
        checkpoints = list_checkpoints(self.directory)
        newest = checkpoints[-1].tag
        epochs = [checkpoint for checkpoint in checkpoints if checkpoint.is_whole_epoch]
        judged = [checkpoint for checkpoint in epochs if checkpoint.validation_loss is not None]
        best = sorted(judged, key=lambda checkpoint: checkpoint.validation_loss or 0.0)[: self.keep_best]
        wanted = {newest} | {checkpoint.tag for checkpoint in epochs[-self.keep_last :] + best}
        for file in sorted(storage.list_files(self.directory), key=lambda file: not file.path.endswith(".yaml")):
            tag, _, suffix = file.path.partition(".")  # the yaml goes first: nothing half-removed looks finished
            if TAG.fullmatch(tag) and (tag not in wanted or (suffix == "state.pt" and tag != newest)):
                storage.remove(storage.join(self.directory, file.path))


@dataclass(frozen=True)
class Resumption:
    """What a run goes on from."""

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    position: Position
    fingerprint: str
    tag: str


def find_newest(directory: str) -> Checkpoint | None:
    """The newest finished checkpoint that a run can go on from; None when there is none."""
    return next((checkpoint for checkpoint in reversed(list_checkpoints(directory)) if checkpoint.has_state), None)


def load(checkpoint: Checkpoint) -> Resumption:
    """Reads all that an exact resume needs.

    Raises:
        CosyFlowError: the files are damaged or of another version of CosyFlow.
    """
    uri = storage.join(checkpoint.directory, f"{checkpoint.tag}.state.pt")
    state = _read_tensors(uri)
    if state.get("format") != STATE_FORMAT:
        raise CosyFlowError(f"{uri}: written by another version of CosyFlow; start again from {checkpoint.weights}")
    return Resumption(
        weights=_read_tensors(checkpoint.weights),
        optimizer=state["optimizer"],
        position=Position(**state["position"]),
        fingerprint=state["fingerprint"],
        tag=checkpoint.tag,
    )


def _read_tensors(uri: str) -> dict[str, Any]:
    try:
        with storage.open_read(uri) as stream:
            content: dict[str, Any] = torch.load(stream, map_location="cpu", weights_only=True)
    except CosyFlowError:
        raise
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise CosyFlowError(
            f"{uri}: damaged or not a checkpoint ({error}); start again with --resume none and another --model_dir"
        ) from error
    return content
