"""Puts averaged and exported models into the MLflow model registry, by the place where they lie: nothing is copied."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cosyflow import __version__, storage
from cosyflow.errors import CosyFlowError
from cosyflow.mlflow_server import connect
from cosyflow.progress import Progress, say
from cosyflow.provenance import git_commit
from cosyflow.release.history import RUN_TAG, STAND_INS_TAG
from cosyflow.release.registry import (
    REGISTERED_FROM_TAG,
    aliases_of,
    is_absent,
    registry_address,
    registry_errors,
    version_numbers,
    versions_of,
)
from cosyflow.stage import StageResult

CANDIDATE = "candidate"
RUN_VARIABLE = "MLFLOW_RUN_ID"
PARENT_TAG = "parent_version"
RECORD = "registered.json"


def register_models(
    models: Mapping[str, str],
    output_dir: str,
    mlflow_uri: str,
    tags: Mapping[str, str],
    alias: str = CANDIDATE,
    stand_ins: bool = False,
) -> StageResult:
    """Registers a version of each model and points the alias to it.

    Args:
        models: registered name to the file or folder that is the model, e.g. {"cosyvoice2-llm": "s3://.../llm.pt"}.
        output_dir: gets `registered.json`, which names the versions. Versions named there are not registered twice.
        mlflow_uri: the tracking server, or `sqlite:///...`; empty means MLFLOW_TRACKING_URI.
        tags: of every version: where it came from (`cosyflow.release.history.tags_of`). Added are `cosyflow_version`,
            `registered_from` (the output folder), `parent_version` (which the alias pointed to before, else the newest
            before) and, where it is absent, the `git_commit` of the code that registers. Where MLflow knows the run
            `mlflow_run_id`, it is the versions' run.
        stand_ins: the models were made with stand-in models, which the tags and the description say.

    Raises:
        CosyFlowError: a model's file is absent, or the registry cannot be reached.
    """
    mlflow_uri = registry_address(mlflow_uri)
    for name, source in models.items():
        if not storage.exists(source):
            raise CosyFlowError(f"{source}: no such file to register as {name}; run the stage that makes it first")
    marks = {"cosyflow_version": __version__, **tags, REGISTERED_FROM_TAG: _absolute(output_dir)}
    if "git_commit" not in marks:
        marks["git_commit"] = git_commit()
    if stand_ins:
        marks[STAND_INS_TAG] = "true"
    record = storage.join(output_dir, RECORD)
    versions: dict[str, int] = storage.read_json(record) if storage.exists(record) else {}
    with registry_errors(mlflow_uri), Progress("register", len(models), "models") as progress:
        client = connect(mlflow_uri, MAX_RETRIES=3)
        versions = {name: version for name, version in versions.items() if _is_there(client, name, version)}
        run_id = _known_run(client, marks.get(RUN_TAG))
        for name, source in models.items():
            if name not in versions:
                versions[name] = _register(client, name, source, run_id, marks, alias, stand_ins)
                storage.write_json(record, versions)
            progress.update()
    for name, version in versions.items():
        say("register", f"{name} version {version} is the {alias}")
    return StageResult({"models": len(versions)}, [RECORD], {"versions": versions, "mlflow_uri": mlflow_uri})


def _register(
    client: Any, name: str, source: str, run_id: str | None, tags: Mapping[str, str], alias: str, stand_ins: bool
) -> int:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    place = source if storage.is_remote(source) else Path(source).resolve().as_uri()
    there = _version_of(client, name, place, tags[REGISTERED_FROM_TAG])
    if there is not None:
        if aliases_of(client, name).get(alias, 0) < there:
            client.set_registered_model_alias(name, alias, str(there))
        return there
    description = "Made with stand-in models: it proves the pipeline and speaks nothing." if stand_ins else ""
    version = client.create_model_version(
        name, place, run_id=run_id, tags={**tags, **_parent(client, name, alias)}, description=description
    )
    client.set_registered_model_alias(name, alias, version.version)
    return int(version.version)


def _version_of(client: Any, name: str, place: str, folder: str) -> int | None:
    """The version that an interrupted attempt has made of the same file, from the same folder."""
    for version in versions_of(client, name):
        if version.source == place and version.tags.get(REGISTERED_FROM_TAG) == folder:
            return int(version.version)
    return None


def _is_there(client: Any, name: str, version: int) -> bool:
    """Whether a version that was registered before has not been deleted since."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_model_version(name, str(version))
    except MlflowException as error:
        if not is_absent(error):
            raise
        return False
    return True


def _parent(client: Any, name: str, alias: str) -> dict[str, str]:
    """The tag that names the version which the next one takes the place of; none for the first."""
    before = aliases_of(client, name).get(alias) or next(iter(version_numbers(client, name)), None)
    return {PARENT_TAG: str(before)} if before else {}


def _known_run(client: Any, trained: str | None) -> str | None:
    """The first of the training's run and the one in MLFLOW_RUN_ID that the server has."""
    from mlflow.exceptions import MlflowException

    for run_id in (trained, os.environ.get(RUN_VARIABLE)):
        if run_id:
            try:
                client.get_run(run_id)
            except MlflowException as error:
                if not is_absent(error):
                    raise
            else:
                return run_id
    return None


def _absolute(folder: str) -> str:
    return folder if storage.is_remote(folder) else str(Path(storage.join(folder)).absolute())
