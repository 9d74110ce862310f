"""What lies below a folder of speech: every file, also by symlinks, and whatever is there and cannot be read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from posixpath import splitext

from cosyflow import storage
from cosyflow.errors import CosyFlowError

AUDIO_SUFFIXES = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64",
    ".sph", ".nist", ".m4a", ".mp4", ".aac", ".wma", ".webm", ".amr",
)  # fmt: skip
"""In lower case; of an utterance that is there twice the first of these is taken. The last six are read by ffmpeg only:
`prepare` rejects them, so that they are listed."""


@dataclass(frozen=True, order=True)
class Found:
    """Something below a folder: its path relative to it, and why it is no file that can be read."""

    path: str
    problem: str = ""

    @cached_property
    def is_hidden(self) -> bool:
        """Files and folders that begin with a dot, and `__MACOSX`, are left behind by programs: they are no speech."""
        path = f"/{self.path}"
        return "/." in path or "/__MACOSX/" in path

    @cached_property
    def suffix(self) -> str:
        """In lower case, with its dot."""
        return splitext(self.path)[1].lower()

    @property
    def is_audio(self) -> bool:
        return self.suffix in AUDIO_SUFFIXES and not self.is_hidden

    @property
    def stem(self) -> str:
        """The path without the suffix."""
        return splitext(self.path)[0]


def list_all(directory: str) -> list[Found]:
    """Everything below a folder that is not itself a folder, sorted by path.

    Symlinks are followed; a link to a folder that it lies in is one finding with a problem, as is a dangling link.

    Raises:
        CosyFlowError: a folder cannot be read, so that its files cannot be counted.
    """
    if storage.is_remote(directory):
        return [Found(file.path) for file in storage.list_files(directory)]
    return sorted(_walk(directory))


def _walk(directory: str) -> Iterator[Found]:
    status = Path(directory).stat()
    folders = [("", frozenset([(status.st_dev, status.st_ino)]))]
    while folders:
        prefix, above = folders.pop()
        for entry in _entries(os.path.join(directory, prefix)):  # noqa: PTH118 - names need not be text
            path = f"{prefix}{entry.name}"
            try:
                status = entry.stat()
            except OSError as error:
                link = "a dangling symlink" if entry.is_symlink() else "cannot be read"
                yield Found(path, f"{link} ({error.strerror})")
                continue
            identity = status.st_dev, status.st_ino
            if stat.S_ISREG(status.st_mode):
                yield Found(path)
            elif not stat.S_ISDIR(status.st_mode):
                yield Found(path, "neither a file nor a folder")
            elif identity in above:
                yield Found(path, "a symlink to a folder that it lies in")
            else:
                folders.append((f"{path}/", above | {identity}))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as scanned:
            return list(scanned)
    except OSError as error:
        raise CosyFlowError(f"{folder} cannot be read: {error.strerror}; check its permissions") from error
