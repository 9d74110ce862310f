"""The MLflow model registry: how it is reached, and what it says of the versions of a name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cosyflow.credentials import TRACKING_VARIABLE, tracking_address, withdraw
from cosyflow.errors import CosyFlowError, Problem, RefusalError
from cosyflow.mlflow_server import connect
from cosyflow.mlflow_server.failures import disk_error

SQLITE = "sqlite:///"
PAGE = 200
REGISTERED_FROM_TAG = "registered_from"
MANIFEST_TAG = "manifest"
FOLDER_TAGS = (REGISTERED_FROM_TAG, MANIFEST_TAG)
"""Tags of a version that name the folders in which it was registered and made."""


@dataclass(frozen=True)
class Version:
    """A version of a registered name. `registered` is the time in UTC, `aliases` are those that point to it."""

    name: str
    version: int
    aliases: list[str]
    tags: dict[str, str]
    source: str
    registered: str


def registry_address(mlflow_uri: str) -> str:
    """The registry's address: `mlflow_uri`, or where it is empty MLFLOW_TRACKING_URI. Raises when there is neither."""
    address = withdraw(mlflow_uri) or tracking_address()
    if not address:
        remedy = f"give its address as --mlflow_uri or in {TRACKING_VARIABLE}"
        raise RefusalError([Problem("mlflow_uri", f"no model registry; {remedy}")])
    return address


@contextmanager
def registry_errors(address: str) -> Iterator[None]:
    """Turns MLflow's errors in the body into CosyFlowError."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if failed := disk_error(address, error):
            raise failed from error
        raise CosyFlowError(f"{address}: the model registry does not answer as it should: {error.message}") from error


def is_absent(error: Any) -> bool:
    """Whether an MlflowException says that what was asked for is not there."""
    return bool(error.error_code == "RESOURCE_DOES_NOT_EXIST")


def aliases_of(client: Any, name: str) -> dict[str, int]:
    """The version that each alias of a registered name points to."""
    return {alias: int(version) for alias, version in client.get_registered_model(name).aliases.items()}


def version_numbers(client: Any, name: str) -> list[int]:
    """The versions of a name, newest first."""
    return [int(version.version) for version in versions_of(client, name)]


def read_versions(mlflow_uri: str, name: str) -> list[Version]:
    """The versions of a name, newest first. Raises CosyFlowError when the registry does not know the name."""
    from mlflow.exceptions import MlflowException

    address = registry_address(mlflow_uri)
    _refuse_new_file(address)
    with registry_errors(address):
        client = connect(address, MAX_RETRIES=3)
        try:
            aliases = aliases_of(client, name)
        except MlflowException as error:
            if not is_absent(error):
                raise
            raise CosyFlowError(f"{name}: no such model in the registry {address}{_known(client)}") from error
        return [_version(found, aliases) for found in versions_of(client, name)]


def folders_of_versions(mlflow_uri: str) -> list[str]:
    """The places that the versions of all names were registered from and are made of, as their tags name them."""
    address = registry_address(mlflow_uri)
    _refuse_new_file(address)
    with registry_errors(address):
        client = connect(address, MAX_RETRIES=3)
        names, token = [], None
        while True:
            page = client.search_registered_models(max_results=PAGE, page_token=token)
            names += [model.name for model in page]
            token = page.token
            if not token:
                break
        versions = [version for name in names for version in versions_of(client, name)]
    return [folder for version in versions for tag in FOLDER_TAGS if (folder := version.tags.get(tag))]


def read_version(mlflow_uri: str, name: str, number: int | None) -> Version:
    """A version of a name; None means the newest. Raises CosyFlowError when there is no such name or version."""
    versions = read_versions(mlflow_uri, name)
    if not versions:
        raise CosyFlowError(f"{name}: the registry knows the name, but no version of it")
    if number is None:
        return versions[0]
    for version in versions:
        if version.version == number:
            return version
    there = ", ".join(str(version.version) for version in versions)
    raise CosyFlowError(f"{name}: no version {number} in the registry; there are {there}")


def _refuse_new_file(address: str) -> None:
    file = Path(address.removeprefix(SQLITE))
    if address.startswith(SQLITE) and not file.exists():  # MLflow would make it
        raise CosyFlowError(f"{address}: no such model registry; {file} does not exist")


def _version(found: Any, aliases: dict[str, int]) -> Version:
    number = int(found.version)
    time = datetime.fromtimestamp(found.creation_timestamp / 1000, UTC)
    return Version(
        name=found.name,
        version=number,
        aliases=sorted(alias for alias, version in aliases.items() if version == number),
        tags=dict(found.tags),
        source=found.source,
        registered=time.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def versions_of(client: Any, name: str) -> list[Any]:
    """Every version of a name, newest first, over as many pages as there are."""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_model_versions(f"name='{name}'", max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.version), reverse=True)


def _known(client: Any) -> str:
    names = sorted(model.name for model in client.search_registered_models(max_results=PAGE))
    return f"; there are {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}" if names else ", which has none"
