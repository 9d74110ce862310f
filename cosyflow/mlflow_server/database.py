"""MLflow's database in a file, which appears under its name when it is whole.

MLflow makes it by dozens of migrations; when it is killed in between, no later start can go on from there.
"""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SQLITE = "sqlite:///"
IN_MEMORY = ":memory:"
UNFINISHED = ".new"


def file_of(address: str) -> Path | None:
    """The database's file; None where the address is of something else."""
    name = address.removeprefix(SQLITE).partition("?")[0]
    return Path(name) if address.startswith(SQLITE) and name not in ("", IN_MEMORY) else None


def make_database(address: str) -> None:
    """Makes the file of a database that is not there yet, and its folder. Of several processes one makes it."""
    file = file_of(address)
    if file is None or _is_there(file):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with _locked(file):
        if _is_there(file):
            return
        for leftover in file.parent.glob(f".{file.name}.*{UNFINISHED}*"):  # also a journal
            leftover.unlink()
        new = file.with_name(f".{file.name}.{secrets.token_hex(6)}{UNFINISHED}")
        try:
            _migrate(new)
            new.replace(file)
        except Exception:
            for path in file.parent.glob(f"{new.name}*"):
                path.unlink(missing_ok=True)
            raise


def _is_there(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _migrate(file: Path) -> None:
    from mlflow import MlflowClient

    address = f"{SQLITE}{file}"
    MlflowClient(tracking_uri=address, registry_uri=address).search_registered_models(max_results=1)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Held by one process; the system gives it back when that ends, however it does."""
    lock = file.with_name(f".{file.name}.lock")
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
        lock.unlink(missing_ok=True)  # the file is there now: who still waits for this lock finds it
