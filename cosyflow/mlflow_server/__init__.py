"""MLflow's tracking server and registry: the one place that makes a client of it, with its login."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote

from cosyflow.credentials import WEB, Login, login_for, whole, withdrawn_login
from cosyflow.errors import CosyFlowError
from cosyflow.mlflow_server.database import file_of, make_database
from cosyflow.mlflow_server.failures import disk_error, quiet_errors

LOGIN_VARIABLES = USER_VARIABLE, PASSWORD_VARIABLE, TOKEN_VARIABLE = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)


def connect(address: str, **limits: int) -> Any:
    """A client of the server, or the database, at an address, and of the registry there.

    Args:
        address: without credentials: those that came with it are known.
        limits: MLFLOW_HTTP_REQUEST_ variables, by the rest of their names; those of the environment count before them.

    Raises:
        CosyFlowError: the address is of a file that MLflow cannot use; DiskError: its disk is full or fails.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name, value in limits.items():
        os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", str(value))
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    quiet_errors()
    complete = _with_login(address)
    try:
        make_database(complete)
        return MlflowClient(tracking_uri=complete, registry_uri=complete)
    except Exception as error:
        if failed := disk_error(complete, error):
            raise failed from error
        file = file_of(complete)
        if file is None or isinstance(error, MlflowException | OSError):
            raise
        reason = getattr(error, "orig", error)  # of SQLAlchemy's, which has the whole statement too
        raise CosyFlowError(
            f"{file}: MLflow cannot use this database ({reason}): it was left unfinished when it was made, or is of"
            " another version of MLflow; move the file elsewhere, and the same command makes a new one"
        ) from error


def authorization(address: str) -> str:
    """Value of the header Authorization for a server, as its client sends it; "" where no login is known."""
    if login := _login_of(address):
        return login.header
    token = os.environ.get(TOKEN_VARIABLE)
    return f"Bearer {token}" if token else ""


def _with_login(address: str) -> str:
    """The address for the client: of all ways that MLflow has, only this gives each server its own."""
    login = _login_of(address)
    if login is None:
        return whole(address)
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{quote(login.user, safe='')}:{quote(login.password, safe='')}@{rest}"


def _login_of(address: str) -> Login | None:
    """The login that came with a server's address, else that of the environment, else that of a file."""
    if address.partition("://")[0].lower() not in WEB:
        return None
    if login := withdrawn_login(address):
        return login
    user, password = (os.environ.get(name) for name in (USER_VARIABLE, PASSWORD_VARIABLE))
    if user and password:
        return Login(user, password)
    return None if os.environ.get(TOKEN_VARIABLE) else login_for(address)
