"""Unpacking archives that one does not trust: only plain files and folders, only where they are meant to be."""

from __future__ import annotations

import gzip
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from cosyflow import disk
from cosyflow.errors import CosyFlowError, DiskError
from cosyflow.unexpected import describe

COPY_BYTES = 1 << 20
DEEPEST = 100
"""Folders that a member may lie in: no corpus needs more, and systems cannot make many more."""


class ArchiveError(CosyFlowError):
    """An archive that must not or cannot be unpacked; the message names the member."""


def unpack(archive: Path, directory: Path, allowed: Callable[[PurePosixPath], bool], source: str) -> None:
    """Unpacks a `.tar.gz` into an empty folder, which the caller removes when this raises.

    Args:
        allowed: whether a file of this path within the archive belongs there.
        source: what errors call the archive.

    Raises:
        ArchiveError: a member is a link or a device, leads out of the folder or is not allowed (the message names it);
            or the archive is damaged.
        CosyFlowError: the disk is full or the folder cannot be written.
    """
    try:
        # gzip.open compares length and CRC at the end of the data; tarfile's own decompression of a stream does not.
        with gzip.open(archive) as data, tarfile.open(fileobj=data, mode="r|") as members:
            for member in members:
                path = _checked_path(member, allowed, source)
                target = directory / path
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                content = members.extractfile(member)
                assert content is not None  # noqa: S101 - a regular file has content
                with content, target.open("xb") as stream:
                    shutil.copyfileobj(content, stream)
            while data.read(COPY_BYTES):
                pass
    except FileExistsError as error:
        raise ArchiveError(f"{source}: {Path(error.filename).name} is there twice; nothing was unpacked") from error
    except (CosyFlowError, MemoryError):
        raise
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile) or error.strerror is None:
            raise ArchiveError(f"{source}: the archive is damaged ({error}); nothing was unpacked") from error
        raise DiskError(f"{directory}: cannot unpack {source}: {error.strerror}; {disk.remedy(error)}") from error
    except Exception as error:  # tarfile and zlib have many
        raise ArchiveError(f"{source}: the archive is damaged ({describe(error)}); nothing was unpacked") from error


def _checked_path(member: tarfile.TarInfo, allowed: Callable[[PurePosixPath], bool], source: str) -> PurePosixPath:
    name = member.name
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ArchiveError(f"{source}: member {name!r} leads out of the archive; nothing was unpacked")
    if len(path.parts) > DEEPEST:
        raise ArchiveError(f"{source}: member {name[:40]!r}... is {len(path.parts)} folders deep; nothing was unpacked")
    if member.issym() or member.islnk():
        raise ArchiveError(f"{source}: member {name!r} is a link to {member.linkname!r}; nothing was unpacked")
    if not (member.isfile() or member.isdir()):
        raise ArchiveError(f"{source}: member {name!r} is neither a file nor a folder; nothing was unpacked")
    if member.isfile() and not allowed(path):
        raise ArchiveError(f"{source}: member {name!r} does not belong into this archive; nothing was unpacked")
    return path
