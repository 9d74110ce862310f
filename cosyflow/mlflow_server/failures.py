"""What MLflow says of a database that failed, in words for its user."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Mapping

from cosyflow.disk import explained
from cosyflow.errors import DiskError
from cosyflow.mlflow_server.database import file_of

SYSTEM_ERRORS: Mapping[int, int] = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}
"""The system's error that a result code of SQLite stands for (https://www.sqlite.org/rescode.html)."""


def disk_error(address: str, error: BaseException) -> DiskError | None:
    """What is wrong with the disk of a database; None where the error, with all that led to it, is of another kind."""
    file = file_of(address)
    found: BaseException | None = error
    while file is not None and found is not None:
        if isinstance(found, sqlite3.Error):
            number = SYSTEM_ERRORS.get((found.sqlite_errorcode or 0) & 0xFF)  # the rest says more about it
            return explained(file, OSError(number, str(found))) if number else None
        found = found.__cause__ or found.__context__
    return None


def quiet_errors() -> None:
    """MLflow logs a traceback of each error of the database that it raises too; who gets the error says it once."""
    logger = logging.getLogger("mlflow.store.db.utils")
    if _has_no_traceback not in logger.filters:
        logger.addFilter(_has_no_traceback)


def _has_no_traceback(record: logging.LogRecord) -> bool:
    return record.exc_info is None
