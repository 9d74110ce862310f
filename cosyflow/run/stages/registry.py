"""Whether a model registry answers, asked without MLflow: the image that plans a run does not have it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.error
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from cosyflow.credentials.web import open_url
from cosyflow.mlflow_server import authorization

SQLITE = "sqlite:///"
DATABASES = ("postgresql", "mysql", "mssql")
TIMEOUT_SECONDS = 4.0


def why_unreachable(uri: str) -> str:
    """What is wrong with a tracking server or database; "" when it answers."""
    if uri.startswith(("http://", "https://")):
        return _ask(uri)
    if uri.startswith(SQLITE):
        return _look_at(Path(uri.removeprefix(SQLITE)))
    if uri.startswith(DATABASES):
        return ""  # which only MLflow knows how to ask
    return f"{uri}: not the address of a model registry (http://, https://, sqlite:///FILE or another database)"


def lost_versions(uri: str, versions: Mapping[str, int]) -> list[str]:
    """Which registered versions are no longer in the registry, as "NAME version N"; none where it cannot be asked."""
    if uri.startswith(("http://", "https://")):
        lost = [name for name, version in versions.items() if not _is_served(uri, name, version)]
    elif uri.startswith(SQLITE):
        lost = _not_in_database(Path(uri.removeprefix(SQLITE)), versions)
    else:
        lost = []
    return [f"{name} version {versions[name]}" for name in lost]


def _is_served(uri: str, name: str, version: int) -> bool:
    query = urllib.parse.urlencode({"name": name, "version": version})
    address = f"{uri.rstrip('/')}/api/2.0/mlflow/model-versions/get?{query}"
    try:
        with open_url(address, TIMEOUT_SECONDS, login=authorization(uri)):
            return True
    except urllib.error.HTTPError as error:
        return error.code != 404
    except OSError:
        return True


def _not_in_database(file: Path, versions: Mapping[str, int]) -> list[str]:
    if not file.exists():
        return list(versions)
    try:
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            query = "SELECT name, version FROM model_versions WHERE current_stage != 'Deleted_Internal'"
            there = set(database.execute(query).fetchall())
    except sqlite3.OperationalError as error:
        return list(versions) if "no such table" in str(error) else []
    return [name for name, version in versions.items() if (name, version) not in there]


def _ask(uri: str) -> str:
    try:
        with open_url(f"{uri.rstrip('/')}/health", TIMEOUT_SECONDS, login=authorization(uri)):
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
