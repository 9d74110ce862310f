"""Folders for what is only needed on the way, which go also when their process was killed.

They lie where the system has temporary files (TMPDIR). A process that was killed cannot remove its own; the next one on
the machine does: each folder names its process, and that of a process that has certainly ended is removed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from cosyflow import disk
from cosyflow.processes import has_ended, this_process

PREFIX = "cosyflow-"
OWNER, WORK = "process", "work"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder of this process, for the `with` body; DiskError when it cannot be made."""
    with disk.written("the folder of temporary files"):
        remove_leftovers()
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with disk.written(folder):
            (folder / OWNER).write_text(this_process(), encoding="utf-8")
            work = folder / WORK
            work.mkdir()
        yield work
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@lru_cache(maxsize=1)
def remove_leftovers() -> None:
    """Removes the folders of processes that have ended, once in a process; what cannot be removed stays."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{OWNER}"):
        with suppress(OSError, UnicodeDecodeError):
            if has_ended(owner.read_text(encoding="utf-8")):
                shutil.rmtree(owner.parent, ignore_errors=True)
