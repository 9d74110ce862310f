"""How a task of the graph stands for a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfp import kubernetes
from kfp.dsl.pipeline_channel import PipelineArtifactChannel
from kfp.dsl.pipeline_task import PipelineTask

from components.base import image_of
from cosyflow.credentials import MOUNTED_LOGINS
from cosyflow.extract.device import CUDA, VARIABLE
from cosyflow.launch.settings import LAUNCHER_FOLDER, LAUNCHER_SECRET, LOGINS_SECRET
from cosyflow.mlflow_server import LOGIN_VARIABLES
from cosyflow.progress import STAGE_VARIABLE
from cosyflow.run.execute import IMAGE_VARIABLE, RUN_VARIABLE
from cosyflow.run.stages import STAGES, position

STORE_SECRET = "mlpipeline-minio-artifact"  # noqa: S105 - the name that Kubeflow Pipelines has for it
STORE_KEYS = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
ENDPOINTS_MAP = "cosyflow"
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "MLFLOW_TRACKING_URI", "KFP_UI_URL")
DOWNLOADING = ("plan", "download")
"""Tasks that ask web servers, whose logins are in a file."""
RUN_LABEL = "metadata.labels['pipeline/runid']"
STAGE_LABEL = "cosyflow.dev/stage"
RETRY: Mapping[str, Any] = {"num_retries": 1, "backoff_duration": "10s", "backoff_max_duration": "30d"}
"""The longest time counts from the first attempt's start, and a training of weeks must find its launcher again."""

SMALL = {"cpu_request": "100m", "memory_request": "256Mi", "memory_limit": "4Gi"}
LARGE = {"cpu_request": "500m", "memory_request": "2Gi", "memory_limit": "16Gi"}
RESOURCES: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(("plan", "report", "download", "prepare", "merge"), SMALL),
    **dict.fromkeys(("speaker-embedding", "speech-token", "parquet", "average", "export", "register"), LARGE),
    "train": {},  # what it is given is that of the training's pods
}
"""What a stage's pod asks for where the run does not say."""
ON_A_DEVICE = ("speaker-embedding", "speech-token")
"""Stages that compute on a GPU where their pod has one; those of a training have their own pods."""


def stage(name: str, task: PipelineTask, resources: Mapping[str, str]) -> PipelineArtifactChannel:
    """Names a task after its stage. Returns the manifest that it makes.

    KFP's cache may answer for it: its stamp names finished work by its content, and is new where work is missing. A
    failed task is started once more, where it goes on with what the first attempt left: it may have been killed for
    want of memory. Only the training gets the token of the account that may make jobs.
    """
    configured = _configure(name, task, resources)
    if name == "train":
        kubernetes.use_secret_as_volume(task, LAUNCHER_SECRET, mount_path=LAUNCHER_FOLDER, optional=True)
    configured.set_env_variable(STAGE_VARIABLE, position(name)).set_retry(**RETRY)
    return configured.outputs[STAGES[name].makes]


def always(name: str, task: PipelineTask, resources: Mapping[str, str]) -> PipelineTask:
    """Names a task that KFP never answers from its cache."""
    return _configure(name, task, resources).set_caching_options(False)


def _configure(name: str, task: PipelineTask, resources: Mapping[str, str]) -> PipelineTask:
    """What every task has: a name, a label, an identity that is not root, and the way to the store and MLflow.

    On a cluster it gets their addresses from a ConfigMap and the credentials from a Secret, where those are; without
    them a pod's own identity has to do. A run on one machine has what its environment says.
    """
    kubernetes.use_secret_as_env(task, STORE_SECRET, STORE_KEYS, optional=True)
    kubernetes.use_secret_as_env(task, LOGINS_SECRET, {key: key for key in LOGIN_VARIABLES}, optional=True)
    if name in DOWNLOADING:
        kubernetes.use_secret_as_volume(task, LOGINS_SECRET, mount_path=str(MOUNTED_LOGINS.parent), optional=True)
    kubernetes.use_config_map_as_env(task, ENDPOINTS_MAP, {key: key for key in ENDPOINTS}, optional=True)
    kubernetes.use_field_path_as_env(task, RUN_VARIABLE, RUN_LABEL)
    kubernetes.add_pod_label(task, STAGE_LABEL, name)
    kubernetes.set_security_context(task, run_as_non_root=True)
    task.set_env_variable(IMAGE_VARIABLE, image_of(task))
    setters = {
        "cpu_request": task.set_cpu_request,
        "cpu_limit": task.set_cpu_limit,
        "memory_request": task.set_memory_request,
        "memory_limit": task.set_memory_limit,
        "accelerator": task.set_accelerator_type,
        "accelerator_limit": task.set_accelerator_limit,
    }
    for kind, amount in resources.items():
        setters[kind](amount)
    if name in ON_A_DEVICE and "nvidia" in resources.get("accelerator", ""):
        task.set_env_variable(VARIABLE, CUDA)  # a GPU that is paid for is used, or the stage fails
    return task.set_display_name(name)
