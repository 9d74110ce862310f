"""Writes the checkpoints of one run, and removes those that are no longer wanted."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import yaml

from cosyflow import __version__, storage
from cosyflow.checkpoint.files import write_file
from cosyflow.checkpoint.folder import (
    OURS,
    RECORD,
    STATE,
    TRAINED,
    WEIGHTS,
    Checkpoint,
    is_our_record,
    list_checkpoints,
    read_record,
)
from cosyflow.checkpoint.select import best
from cosyflow.checkpoint.state import Position, Snapshot, state_of
from cosyflow.errors import CosyFlowError

STATES_KEPT = 2


class CheckpointWriter:
    """Writes checkpoints of one run and removes those of ours that are no longer wanted. Only rank 0 has one.

    Args:
        directory: where they go.
        settings: entries of every yaml, as plain values.
        keep_last: number of the newest epochs that are kept.
        keep_best: number of the epochs with the lowest validation loss that are kept as well. The newest
            STATES_KEPT checkpoints and the newest whole epoch are kept with their states, from which a run goes on when
            the newest one is damaged, or when the number of ranks changes.
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

    def save(self, snapshot: Snapshot, position: Position, fingerprint: str, record: Mapping[str, Any]) -> Checkpoint:
        """Writes a checkpoint.

        Args:
            snapshot: what the engine gathered.
            position: where the run is.
            fingerprint: identifies the batches of the current epoch (see TrainingData.fingerprint).
            record: further entries of the yaml, e.g. `loss_dict`.

        Raises:
            CosyFlowError: a checkpoint of this name is there, and is not ours.
        """
        name = position.name
        files = {file.path for file in storage.list_files(self.directory)}
        if name + WEIGHTS in files and not self._is_ours(name, files):
            raise CosyFlowError(
                f"{self._uri(name, WEIGHTS)}: another trainer wrote it, and it is not overwritten; move it to"
                " another folder, and the same command goes on from the last checkpoint"
            )
        storage.remove(self._uri(name, RECORD))  # from here on an older one of this name is unfinished
        # the state first: what is left of a kill is known as ours
        write_file(state_of(snapshot, position, fingerprint), self._uri(name, STATE))
        write_file(dict(snapshot.weights), self._uri(name, WEIGHTS))
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
        storage.write_text(self._uri(name, RECORD), yaml.safe_dump(entries, allow_unicode=True))
        self._remove_unwanted(name)
        return Checkpoint(self.directory, name, entries, has_state=True)

    def _uri(self, name: str, suffix: str) -> str:
        return storage.join(self.directory, name + suffix)

    def _is_ours(self, name: str, files: set[str]) -> bool:
        """Whether the files of a name are ours, also when they are not all there."""
        has_record = name + RECORD in files
        return name + STATE in files or (has_record and is_our_record(read_record(self._uri(name, RECORD))))

    def _remove_unwanted(self, written: str) -> None:
        ours = [checkpoint for checkpoint in list_checkpoints(self.directory) if checkpoint.is_ours]
        if self.start is not None:
            left = {c.name for c in ours if not c.is_whole_epoch and c.update > self.start and c.name != written}
            ours = [checkpoint for checkpoint in ours if checkpoint.name not in left]
            self.start = None
        epochs = [checkpoint for checkpoint in ours if checkpoint.is_whole_epoch]
        with_state = [checkpoint for checkpoint in ours if checkpoint.has_state]
        whole = [checkpoint for checkpoint in with_state if checkpoint.is_whole_epoch]
        states = {checkpoint.name for checkpoint in with_state[-STATES_KEPT:] + whole[-1:]}
        kept = epochs[-self.keep_last :] + best(epochs, self.keep_best)
        wanted = states | {checkpoint.name for checkpoint in kept}

        files = {file.path for file in storage.list_files(self.directory)}
        for name in sorted({file.partition(".")[0] for file in files} - wanted):
            if TRAINED.fullmatch(name) and self._is_ours(name, files):
                for suffix in (WEIGHTS, STATE, RECORD):  # half-removed it is no checkpoint, and known as ours
                    storage.remove(self._uri(name, suffix))
        for checkpoint in epochs:
            if checkpoint.has_state and checkpoint.name in wanted - states:
                storage.remove(checkpoint.state)
