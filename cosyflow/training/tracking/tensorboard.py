"""Metrics for TensorBoard."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from cosyflow import storage
from cosyflow.errors import OutageError

SECONDS_BETWEEN_UPLOADS = 30.0


class TensorBoard:
    """Writes event files.

    A store cannot add to an object, so that the file is kept on this machine and sent whole every now and then.

    Args:
        directory: local or s3://.
        start: entries after this update, of an interrupted run, are hidden.
    """

    def __init__(self, directory: str, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._directory = directory
        self._kept = tempfile.TemporaryDirectory() if storage.is_remote(directory) else None
        self._sent = float("-inf")
        place = self._kept.name if self._kept else directory
        self._writer = SummaryWriter(place, purge_step=start + 1 if start else None)

    def write(self, update: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, update)
        self._writer.flush()
        if time.monotonic() - self._sent >= SECONDS_BETWEEN_UPLOADS:
            with storage.impatient(), suppress(OutageError):  # the next time sends all of it
                self._send()

    def close(self, finished: bool) -> None:
        self._writer.close()
        self._send()
        if self._kept:
            self._kept.cleanup()

    def _send(self) -> None:
        if self._kept is None:
            return
        self._sent = time.monotonic()
        for file in Path(self._kept.name).iterdir():
            storage.write_bytes(storage.join(self._directory, file.name), file.read_bytes())
