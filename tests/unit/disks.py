"""A small disk of the tests, and how it is filled."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_BYTES = 8 << 20


@contextmanager
def mounted(folder: Path) -> Iterator[bool]:
    """A file system of its own in a folder, of DISK_BYTES; False where nobody may mount one."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, left: int) -> Path:
    """Takes the room of the disk but for `left` bytes. Returns the file that takes it."""
    ballast = folder / "ballast"
    ballast.unlink(missing_ok=True)
    with ballast.open("wb", buffering=0) as stream:
        free = shutil.disk_usage(folder).free - left
        while free > 0:
            free -= stream.write(b"\0" * min(free, 1 << 20))
    return ballast
