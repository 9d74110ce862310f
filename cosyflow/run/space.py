"""Room on this machine's disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from cosyflow import storage
from cosyflow.errors import Problem
from cosyflow.run.record import Record


def too_little_space(record: Record, needed: int) -> Iterator[Problem]:
    """A problem when the disk of a data root on this machine has less than `needed` bytes free; elsewhere a warning."""
    root = record.run.data_root
    if storage.is_remote(root):
        if needed:
            text = (
                f"{root}: about {needed / 1e9:.1f} GB will be written; whether the store has room cannot be seen here"
            )
            yield Problem("data_root", text, is_warning=True)
        return
    there = next(path for path in [Path(root).absolute(), *Path(root).absolute().parents] if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        yield Problem(
            "data_root",
            f"{root}: {free / 1e9:.1f} GB are free, about {needed / 1e9:.1f} GB are needed; make room, or give a"
            " folder on another disk",
        )
