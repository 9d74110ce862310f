"""Files of this machine: writing to a temporary name in the same folder, then renaming."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cosyflow.errors import CosyFlowError

TEMPORARY_SUFFIX = ".part"


class LocalFiles:
    """Every method takes a path as text. System errors become one line that names the path."""

    def kind(self, path: str) -> str | None:
        """One of "file", "folder", None (there is nothing)."""
        with _named(path):
            if Path(path).is_dir():
                return "folder"
            return "file" if Path(path).exists() else None

    def size(self, path: str) -> int:
        with _named(path):
            return Path(path).stat().st_size

    def modified(self, path: str) -> float:
        with _named(path):
            return Path(path).stat().st_mtime

    def walk(self, path: str) -> Iterator[tuple[str, int]]:
        """(relative path, bytes) of every file below a folder; unfinished temporary files are left out."""
        root = Path(path)
        for folder, _, names in os.walk(root):
            for name in names:
                if not is_temporary(name):
                    file = Path(folder) / name
                    yield file.relative_to(root).as_posix(), file.stat().st_size

    def has_any(self, path: str) -> bool:
        with _named(path):
            return Path(path).is_dir() and any(Path(path).iterdir())

    def make_directory(self, path: str) -> None:
        with _named(path):
            Path(path).mkdir(parents=True, exist_ok=True)

    def open_read(self, path: str) -> BinaryIO:
        with _named(path):
            return Path(path).open("rb")

    @contextmanager
    def open_write(self, path: str) -> Iterator[BinaryIO]:
        target = Path(path)
        temporary = target.with_name(temporary_name(target.name))
        with _named(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            stream = temporary.open("xb")
        try:
            with stream:
                yield stream
                with _named(path):
                    stream.flush()
                    os.fsync(stream.fileno())
            with _named(path):
                temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        target = Path(path)
        with _named(path):
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)


def temporary_name(name: str) -> str:
    """A hidden name in the same folder that `walk` leaves out, different at every call."""
    return f".{name[:200]}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}"


def is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)


@contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise CosyFlowError(f"{path} does not exist") from error
    except OSError as error:
        raise CosyFlowError(f"{path}: {error.strerror or error}") from error
