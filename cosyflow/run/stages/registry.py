"""Whether a model registry answers, told without MLflow: the image that plans a run does not have it."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

SQLITE = "sqlite:///"
TIMEOUT_SECONDS = 4.0


def why_unreachable(uri: str) -> str:
    """What is wrong with a tracking server or database; "" when it answers."""
    if uri.startswith(("http://", "https://")):
        return _ask(uri)
    if uri.startswith(SQLITE):
        return _look_at(Path(uri.removeprefix(SQLITE)))
    if "://" in uri:
        return ""  # another database, which only MLflow knows how to ask
    return f"{uri}: not the address of a model registry (http://, https:// or sqlite:///FILE)"


def _ask(uri: str) -> str:
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=TIMEOUT_SECONDS):  # noqa: S310 - http(s) only
            return ""
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):  # it is there; a proxy before it may not show this page
            return ""
        return f"{uri}: the model registry answers with status {error.code}"
    except (OSError, ValueError) as error:
        return f"{uri}: the model registry does not answer ({getattr(error, 'reason', error)})"


def _look_at(file: Path) -> str:
    there = next(path for path in [file, *file.absolute().parents] if path.exists())
    if there.is_dir() and there == file:
        return f"{SQLITE}{file}: is a folder"
    if not os.access(there, os.W_OK):
        return f"{SQLITE}{file}: {there} cannot be written"
    return ""
