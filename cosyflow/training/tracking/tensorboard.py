"""Metrics for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping


class TensorBoard:
    """Writes event files.

    Args:
        directory: a local folder, or a store that TensorBoard knows.
        start: entries after this update, of an interrupted run, are hidden.
    """

    def __init__(self, directory: str, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(directory, purge_step=start + 1 if start else None)

    def write(self, update: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, update)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        self._writer.close()
