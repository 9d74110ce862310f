"""Puts averaged and exported models into the MLflow model registry, by the place where they lie: nothing is copied."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cosyflow import __version__, storage
from cosyflow.errors import CosyFlowError
from cosyflow.progress import Progress, say
from cosyflow.provenance import git_commit
from cosyflow.stage import StageResult

CANDIDATE = "candidate"
RUN_VARIABLE = "MLFLOW_RUN_ID"
TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
STAND_INS_TAG = "cosyflow.stand_ins"
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
        tags: of every version: where it came from. `git_commit` and `cosyflow_version` are added.
        stand_ins: the models were made with stand-in models, which the tags and the description say.

    Raises:
        CosyFlowError: a model's file is absent, or the registry cannot be reached.
    """
    mlflow_uri = mlflow_uri or os.environ.get(TRACKING_VARIABLE, "")
    if not mlflow_uri:
        raise CosyFlowError(f"no model registry: give its address as --mlflow_uri or in {TRACKING_VARIABLE}")
    for name, source in models.items():
        if not storage.exists(source):
            raise CosyFlowError(f"{source}: no such file to register as {name}; run the stage that makes it first")
    marks = {"git_commit": git_commit(), "cosyflow_version": __version__, **tags}
    if stand_ins:
        marks[STAND_INS_TAG] = "true"
    record = storage.join(output_dir, RECORD)
    versions: dict[str, int] = storage.read_json(record) if storage.exists(record) else {}
    with _mlflow_errors(mlflow_uri), Progress("register", len(models), "models") as progress:
        client = _client(mlflow_uri)
        for name, source in models.items():
            if name not in versions:
                versions[name] = _register(client, name, source, marks, alias, stand_ins)
                storage.write_json(record, versions)
            progress.update()
    for name, version in versions.items():
        say("register", f"{name} version {version} is the {alias}")
    return StageResult({"models": len(versions)}, [RECORD], {"versions": versions, "mlflow_uri": mlflow_uri})


def _client(mlflow_uri: str) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=mlflow_uri, registry_uri=mlflow_uri)


def _register(client: Any, name: str, source: str, tags: Mapping[str, str], alias: str, stand_ins: bool) -> int:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    place = source if storage.is_remote(source) else Path(source).resolve().as_uri()
    description = "Made with stand-in models: it proves the pipeline and speaks nothing." if stand_ins else ""
    version = client.create_model_version(
        name, place, run_id=os.environ.get(RUN_VARIABLE), tags=dict(tags), description=description
    )
    client.set_registered_model_alias(name, alias, version.version)
    return int(version.version)


@contextmanager
def _mlflow_errors(mlflow_uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise CosyFlowError(
            f"{mlflow_uri}: the model registry does not answer as it should: {error.message}"
        ) from error
