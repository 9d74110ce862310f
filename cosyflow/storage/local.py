"""Files of this machine: writing to a temporary name in the same folder, then renaming."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cosyflow import disk
from cosyflow.errors import CosyFlowError, MissingError
from cosyflow.storage import fences
from cosyflow.storage.fences import LEASES

TEMPORARY_SUFFIX = ".part"
WITHOUT_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system says that has no hard links."""


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
        for folder, folders, names in os.walk(root):
            if LEASES in folders:
                folders.remove(LEASES)
            for name in names:
                if is_temporary(name):
                    continue
                file = Path(folder) / name
                try:
                    size = file.stat().st_size
                except FileNotFoundError:
                    if file.is_symlink():
                        raise
                    continue  # removed meanwhile
                yield file.relative_to(root).as_posix(), size

    def has_any(self, path: str) -> bool:
        with _named(path):
            return Path(path).is_dir() and any(Path(path).iterdir())

    def state(self, path: str) -> tuple[int, str, int]:
        """(bytes, inode and time of modification, time of the last change of either in ns) of what a path leads to."""
        try:
            status = os.stat(path)  # noqa: PTH116 - asked of hundreds of thousands of files
        except OSError as error:
            raise _out_of_reach(path, error) from error
        if not stat.S_ISREG(status.st_mode):
            what = "is a folder" if stat.S_ISDIR(status.st_mode) else "is neither a file nor a folder"
            raise CosyFlowError(f"{path} {what}, where a file is wanted")
        return _state(status)

    def states(self, path: str, deep: bool) -> Iterator[tuple[str, tuple[int, str, int]]]:
        """(relative path, what `state` returns) of every file below a folder, of its own level alone unless `deep`.

        Symlinks are followed; a folder that lies within itself by a symlink is entered once.
        """
        top = Path(path)
        try:
            status = top.stat()
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not top.is_symlink():
                return
            raise _out_of_reach(path, error) from error
        if not stat.S_ISDIR(status.st_mode):
            raise CosyFlowError(f"{path} is a file, where a folder is wanted")
        ancestors = frozenset([(status.st_dev, status.st_ino)])
        folders = [(path, "", ancestors)]
        while folders:
            folder, prefix, above = folders.pop()
            try:
                with os.scandir(folder) as scanned:
                    entries = list(scanned)
            except OSError as error:
                raise _out_of_reach(folder, error) from error
            for entry in entries:
                if is_temporary(entry.name) or entry.name == LEASES:
                    continue
                try:
                    status = entry.stat()
                except OSError as error:
                    raise _out_of_reach(entry.path, error) from error
                if stat.S_ISREG(status.st_mode):
                    yield prefix + entry.name, _state(status)
                elif not stat.S_ISDIR(status.st_mode):
                    raise CosyFlowError(f"{entry.path} is neither a file nor a folder; take it out of {path}")
                elif deep and (status.st_dev, status.st_ino) not in above:
                    inner = above | {(status.st_dev, status.st_ino)}
                    folders.append((entry.path, f"{prefix}{entry.name}/", inner))

    def make_directory(self, path: str) -> None:
        with disk.written(path):
            Path(path).mkdir(parents=True, exist_ok=True)

    def open_read(self, path: str) -> BinaryIO:
        with _named(path):
            return Path(path).open("rb")

    @contextmanager
    def open_write(self, path: str) -> Iterator[BinaryIO]:
        target = Path(path)
        temporary = target.with_name(temporary_name(target.name))
        with disk.written(path):
            target.parent.mkdir(parents=True, exist_ok=True)
            stream = disk.Writer(temporary)
        try:
            try:
                yield stream
                with disk.written(path):
                    stream.flush()
                    os.fsync(stream.fileno())
            except Exception as error:
                if stream.failure is not None:  # what a library makes of it names no place
                    raise disk.explained(path, stream.failure) from error
                raise
            finally:
                with suppress(OSError):  # bytes that cannot be written stay in its buffer
                    stream.close()
            fences.check(path)
            with disk.written(path):
                temporary.replace(target)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def create(self, path: str, data: bytes) -> bool:
        """Writes a small file where there is none. Returns whether it did; on a shared file system too, one does.

        Who finds the file finds all of it, except on a file system without links.
        """
        target = Path(path)
        with disk.written(path):
            while True:
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(temporary_name(target.name))
                try:
                    _write_new(temporary, data)
                    try:
                        os.link(temporary, target)
                    except OSError as error:
                        if error.errno not in WITHOUT_LINKS:
                            raise
                        _write_new(target, data)
                    return True
                except FileExistsError:
                    return False
                except FileNotFoundError:  # somebody else has just removed the folder
                    continue
                finally:
                    temporary.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        target = Path(path)
        fences.check(path)
        with disk.written(path):
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes) -> None:
    """Writes a file where there is none. Raises FileExistsError when there is one."""
    with path.open("xb") as stream:
        try:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise


def temporary_name(name: str) -> str:
    """A hidden name in the same folder that `walk` leaves out, different at every call."""
    return f".{name[:200]}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}"


def remove_unfinished(folder: str, prefix: str) -> None:
    """Removes what `open_write` left, when its process was killed, of files in that folder whose names begin so."""
    pattern = re.compile(rf"\.{re.escape(prefix)}.*\.[0-9a-f]{{12}}{re.escape(TEMPORARY_SUFFIX)}")
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if pattern.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                Path(entry.path).unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)


def _state(status: os.stat_result) -> tuple[int, str, int]:
    return status.st_size, f"{status.st_ino} {status.st_mtime_ns}", status.st_ctime_ns


def _out_of_reach(path: str, error: OSError) -> CosyFlowError:
    reason = error.strerror or str(error)
    if os.path.islink(path):  # noqa: PTH114 - False where pathlib raises
        target = Path(path).readlink()
        return CosyFlowError(f"{path} is a symlink to {target}: {reason}; correct the link or remove it")
    if isinstance(error, FileNotFoundError):
        return MissingError(f"{path} does not exist; check the path, or whether something has just removed it")
    return CosyFlowError(f"{path} cannot be read: {reason}; check its permissions and its disk")


@contextmanager
def _named(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MissingError(f"{path} does not exist") from error
    except OSError as error:
        raise CosyFlowError(f"{path}: {error.strerror or error}") from error
