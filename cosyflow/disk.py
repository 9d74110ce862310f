"""What a disk that fails means: the place that it is about, and what to do, by the number of the system's error."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cosyflow.errors import DiskError

ROOM = "make room there, or take another place"
REMEDIES: Mapping[int, str] = {
    errno.ENOSPC: ROOM,
    errno.EDQUOT: ROOM,
    errno.EFBIG: "allow larger files (ulimit -f), or take another place",
    errno.EROFS: "take a place that can be written",
    errno.EACCES: "give the right to it, or take another place",
    errno.EPERM: "give the right to it, or take another place",
    errno.EIO: "look after the disk, then start again",
    errno.ESTALE: "mount the file system anew, then start again",
    errno.ENOTCONN: "mount the file system anew, then start again",
    errno.ENODEV: "mount the file system anew, then start again",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "allow more open files (ulimit -n)",
    errno.ENAMETOOLONG: "take a place or names that are shorter",
    errno.ENOTDIR: "a file is where a folder is wanted; move it, or take another place",
    errno.EISDIR: "a folder is where a file is wanted; move it, or take another place",
    errno.ELOOP: "correct the links on the way to it",
    errno.ETXTBSY: "start again when no program uses it",
    errno.EBUSY: "start again when nothing uses it",
}
"""What a user can do about an error at a place that is written."""
UNKNOWN = "look after the place, or take another one"
TEMPORARY = "another place for temporary files is TMPDIR"


def explained(path: str | os.PathLike[str], error: OSError) -> DiskError:
    """The error for a place that could not be written: the path, the system's reason, and what to do."""
    place = os.fspath(path)
    reason = error.strerror or str(error) or type(error).__name__
    return DiskError(f"{place}: {reason}; {remedy(error, place)}")


def remedy(error: OSError, place: str = "") -> str:
    """What can be done about an error of the system, at a place where that is known."""
    known = REMEDIES.get(error.errno or 0, UNKNOWN)
    return f"{known} ({TEMPORARY})" if place and _is_temporary(place) else known


@contextmanager
def written(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises DiskError for an error of the system in the `with` body, which writes at a path."""
    try:
        yield
    except OSError as error:
        raise explained(path, error) from error


class Remembering:
    """For a stream that remembers why it could not be written: some libraries say something else, or nothing.

    Attributes:
        failure: the last error of a write.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        with self._remembered():
            return int(super().write(data))  # type: ignore[misc]

    def flush(self) -> None:
        with self._remembered():
            super().flush()  # type: ignore[misc]

    @contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failure = error
            raise


class Writer(Remembering, io.BufferedWriter):
    """A new file of this machine."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path, "xb"))


def _is_temporary(place: str) -> bool:
    try:
        folder = tempfile.gettempdir()
    except OSError:  # there is none that can be written
        return False
    inner, outer = (os.path.join(os.path.abspath(path), "") for path in (place, folder))  # noqa: PTH100, PTH118
    return inner.startswith(outer)
