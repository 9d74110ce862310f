"""A training run as a job of a cluster: what its pods get, and what is checked before there are any."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cosyflow import storage
from cosyflow.config.deepspeed import config_place
from cosyflow.credentials import tracking_address
from cosyflow.errors import CosyFlowError, Problem, RefusalError
from cosyflow.launch.client import Cluster
from cosyflow.launch.follow.attempts import JOB_FILE, Attempts, patiently
from cosyflow.launch.follow.heart import beating
from cosyflow.launch.follow.timeline import Timeline
from cosyflow.launch.kinds.kind import JobKind
from cosyflow.launch.settings import JobSettings, devices_of
from cosyflow.launch.spec import JobSpec, base_name, label_value
from cosyflow.launch.surroundings import Surroundings, look_around
from cosyflow.progress import STAGE_VARIABLE, say
from cosyflow.provenance import RUN_TAGS_VARIABLE
from cosyflow.storage.client import ENDPOINT_VARIABLES, REGION_VARIABLES
from cosyflow.training.arguments import Arguments
from cosyflow.training.failure import failure_uri
from cosyflow.training.heartbeat import HEARTBEAT_FILE, HEARTBEAT_VARIABLE
from cosyflow.training.parent import PARENT_VARIABLE, Parent

MODULE = "cosyflow.training"
TIMELINE_FILE = "timeline.jsonl"
RECIPE_FILE = "recipe.yaml"
DEEPSPEED_FILE = "deepspeed.json"
PASSED_ON = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_RUN_ID",
    "MLFLOW_EXPERIMENT_ID",
    RUN_TAGS_VARIABLE,
    STAGE_VARIABLE,
    *REGION_VARIABLES,
)
"""Variables that the pods get as the launcher has them."""
PLACES = (
    "train_data",
    "cv_data",
    "model_dir",
    "checkpoint",
    "ref_model",
    "qwen_pretrain_path",
    "tokenizer_path",
    "onnx_path",
    "tensorboard_dir",
)
"""The arguments that name what pods must see."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def train_in_cluster(
    kind: JobKind, arguments: Arguments, settings: JobSettings, num_nodes: int, gpus_per_node: int, log: Path
) -> list[str]:
    """Trains in a job of the cluster: makes it or goes on following it, and waits for its good end.

    The job's manifest and the timeline of all attempts are left in the model's folder.

    Args:
        kind: of the job.
        num_nodes: pods.
        gpus_per_node: devices and processes of each; -1 is what the settings' resources say, else 1; 0 is one process
            without a device.
        log: file that the output of the first pod is added to.

    Returns:
        The files that were left, by their names in the model's folder.

    Raises:
        RefusalError: pods cannot see an input, or settings are missing.
        CosyFlowError: the training failed, would fail again, does not start, or belongs to another run; or the cluster
            refuses it.
    """
    report = partial(say, f"train {arguments.model}")
    cluster = Cluster(kind, settings.namespace)
    surroundings = patiently(partial(look_around, cluster), settings.outage_seconds)
    settings = _complete(settings, surroundings)
    check_reachable(arguments, settings)
    run = label_value(surroundings.run or run_of(arguments))
    spec = JobSpec(
        base=base_name(arguments.run_name or arguments.model, arguments.model_dir),
        namespace=cluster.namespace,
        run=run,
        attempt=0,
        module=MODULE,
        arguments=tuple(as_pods_see(arguments).command_line()),
        num_nodes=num_nodes,
        gpus_per_node=devices_of(settings) if gpus_per_node == -1 else gpus_per_node,
        settings=settings,
        env=_environment(arguments.model_dir, surroundings.parent),
        owner=surroundings.owner,
        asks_cluster=surroundings.parent is not None,
    )
    timeline = Timeline(storage.join(arguments.model_dir, TIMELINE_FILE), report)
    work = work_of(arguments, settings.image, run)
    attempts = Attempts(cluster, spec, arguments.model_dir, work, timeline, log)
    attempts.check_free()
    _copy_settings(arguments, as_pods_see(arguments))
    with beating(storage.join(arguments.model_dir, HEARTBEAT_FILE), report):
        end = attempts.to_the_end()
    if end.kind != "succeeded":
        raise CosyFlowError(f"training job {spec.namespace}/{spec.name}: {end.reason}; see {timeline.uri}")
    storage.remove(failure_uri(arguments.model_dir))
    return [JOB_FILE, TIMELINE_FILE]


def run_of(arguments: Arguments) -> str:
    """Who is training, outside of a pipeline: the same command is the same run."""
    return hashlib.sha256("\0".join(arguments.command_line()).encode()).hexdigest()[:16]


def work_of(arguments: Arguments, image: str, run: str) -> str:
    """A digest of what a run trains with what: the command line, the texts of the files that it names, and the image.

    As long as it is the same, what failed for certain would fail again.
    """
    files = (arguments.config, config_place(arguments.deepspeed_config), arguments.train_data, arguments.cv_data)
    texts = [storage.digest(uri) if uri and storage.exists(uri) else "" for uri in files]
    return hashlib.sha256("\0".join((run, image, *arguments.command_line(), *texts)).encode()).hexdigest()[:16]


def check_reachable(arguments: Arguments, settings: JobSettings) -> None:
    """Raises RefusalError for inputs and outputs that a pod cannot see."""
    mounts = [Path(mount["mountPath"]) for mount in settings.volume_mounts]
    problems = []
    for name in PLACES:
        uri = getattr(arguments, name)
        if uri and not storage.is_remote(uri) and not any(Path(uri).absolute().is_relative_to(at) for at in mounts):
            text = (
                f"{uri}: the job's pods cannot see it; put it under s3://, or mount a volume there (volumes and"
                " volume_mounts of the job's settings)"
            )
            problems.append(Problem(name, text))
    if problems:
        raise RefusalError(problems)


def _complete(settings: JobSettings, surroundings: Surroundings) -> JobSettings:
    """The settings with what is known here for what they leave out."""
    image = settings.image or surroundings.image
    if not image:
        raise RefusalError([Problem("job", "no image for the job's pods; give one as `image` in the job's settings")])
    endpoint = settings.s3_endpoint or next(
        (os.environ[name] for name in ENDPOINT_VARIABLES if os.environ.get(name)), ""
    )
    if urlsplit(endpoint).hostname in LOOPBACK:
        text = (
            f"the job's pods cannot reach {endpoint}; give the store's address within the cluster as `s3_endpoint` in"
            " the job's settings"
        )
        raise RefusalError([Problem("job", text)])
    return replace(settings, image=image, s3_endpoint=endpoint)


def as_pods_see(arguments: Arguments) -> Arguments:
    """The arguments with recipe and DeepSpeed's settings in the model's folder, where the launcher copies them to."""
    changed: dict[str, Any] = {"config": storage.join(arguments.model_dir, RECIPE_FILE)}
    if arguments.train_engine == "deepspeed":
        changed["deepspeed_config"] = storage.join(arguments.model_dir, DEEPSPEED_FILE)
    if not arguments.run_name:  # the copy of the recipe has lost its name
        changed["run_name"] = f"{arguments.recipe_name}-{arguments.model}"
    return replace(arguments, **changed)


def _copy_settings(here: Arguments, there: Arguments) -> None:
    for source, target in ((here.config, there.config), (here.deepspeed_config, there.deepspeed_config)):
        if target != source:
            storage.write_bytes(target, storage.read_bytes(config_place(source)))


def _environment(model_dir: str, parent: Parent | None) -> tuple[tuple[str, str], ...]:
    tracking_address()  # without what it may carry
    passed = [(name, os.environ[name]) for name in PASSED_ON if os.environ.get(name)]
    ends_with = [(PARENT_VARIABLE, parent.to_variable())] if parent is not None else []
    return (*passed, (HEARTBEAT_VARIABLE, storage.join(model_dir, HEARTBEAT_FILE)), *ends_with)
