"""Which sinks a run has, and what they are given of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from cosyflow import __version__, storage
from cosyflow.provenance import git_commit, git_is_clean, run_tags
from cosyflow.redaction import redact
from cosyflow.training.arguments import Arguments, tracking_uri
from cosyflow.training.tracking import Sink
from cosyflow.training.tracking.metrics_file import METRICS_FILE, MetricsFile


def sinks(arguments: Arguments, settings: Mapping[str, Any], done: int) -> dict[str, Callable[[], Sink]]:
    """What makes each sink of a run that has `done` updates behind it."""
    makers: dict[str, Callable[[], Sink]] = {}
    makers[METRICS_FILE] = partial(MetricsFile, storage.join(arguments.model_dir, METRICS_FILE), done)
    if arguments.tensorboard_dir:
        from cosyflow.training.tracking.tensorboard import TensorBoard

        makers["TensorBoard"] = partial(TensorBoard, arguments.tensorboard_dir, done)
    uri = tracking_uri(arguments)
    if uri:
        from cosyflow.training.tracking.mlflow import Mlflow, MlflowRun

        name = arguments.run_name or f"{arguments.recipe_name}-{arguments.model}"
        params = {key: redact(str(value))[:500] for key, value in settings.items()}
        run = MlflowRun(uri, arguments.experiment, name, params, _tags(arguments, str(settings["version"])))
        makers["MLflow"] = partial(Mlflow, run, arguments.model_dir)
    return makers


def _tags(arguments: Arguments, version: str) -> dict[str, str]:
    """Tags of a run in MLflow, which has its settings as parameters."""
    return {
        "cosyflow.version": __version__,
        "recipe": arguments.recipe_name,
        "recipe_file": arguments.config,
        "version": version,
        "model": arguments.model,
        "git_commit": git_commit(),
        "git_clean": git_is_clean(),
        **run_tags(),
    }
