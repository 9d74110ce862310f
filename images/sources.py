"""What goes into an image, as a tag that changes when, and only when, that changes."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

TAG_CHARACTERS = 16
LIBRARY = ("cosyflow", "components", "pipelines", "conf", "pyproject.toml", "images/library", "images/install-library")
INSTALLER = "images/install-packages"


def content_tag(checkout: Path, paths: Iterable[str], *parts: str) -> str:
    """A tag made of the files that git knows below some paths, or would if they were added, and of further texts."""
    total = hashlib.sha256()
    for path in tracked_files(checkout, paths):
        content = (checkout / path).read_bytes()
        total.update(f"{path}\0{len(content)}\0".encode() + content)
    for part in parts:
        total.update(f"{len(part)}\0{part}".encode())
    return total.hexdigest()[:TAG_CHARACTERS]


def tracked_files(checkout: Path, paths: Iterable[str]) -> list[str]:
    """Files below some paths, without those that git ignores and without tests, as .dockerignore has it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths]
    listed = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout
    names = sorted({name for name in listed.split("\0") if name})
    return [name for name in names if not Path(name).name.startswith("test_") and (checkout / name).is_file()]


def git_commit(checkout: Path) -> str:
    """The commit of the checkout; with "-dirty" when what goes into the images is not what was committed."""
    commit = _git(checkout, "rev-parse", "HEAD")
    changed = _git(checkout, "status", "--porcelain", "--", *LIBRARY, "images", "uv.lock")
    return f"{commit}-dirty" if changed else commit


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=checkout, capture_output=True, text=True, check=True)
    return done.stdout.strip()
