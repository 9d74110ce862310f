"""How a task of the graph stands for a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfp import kubernetes
from kfp.dsl.pipeline_channel import PipelineArtifactChannel
from kfp.dsl.pipeline_task import PipelineTask

from cosyflow.progress import STAGE_VARIABLE
from cosyflow.stages import position

STORE_SECRET = "mlpipeline-minio-artifact"  # noqa: S105 - the name that Kubeflow Pipelines has for it
STORE_KEYS = {"accesskey": "AWS_ACCESS_KEY_ID", "secretkey": "AWS_SECRET_ACCESS_KEY"}
ENDPOINTS_MAP = "cosyflow"
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "MLFLOW_TRACKING_URI")
RETRY: Mapping[str, Any] = {"num_retries": 1, "backoff_duration": "10s", "backoff_max_duration": "30d"}
"""The longest time counts from the first attempt's start, and a training of weeks must find its launcher again."""


def stage(name: str, task: PipelineTask) -> PipelineArtifactChannel:
    """Names a task after its stage. Returns the manifest that it makes.

    KFP's cache stays off: a stage itself knows what is done already, and notices what was deleted. A failed task is
    started once more, where it goes on with what the first attempt left: it may have been killed for want of memory.
    """
    always(name, task).set_env_variable(STAGE_VARIABLE, position(name)).set_retry(**RETRY)
    return task.outputs["manifest"]


def always(name: str, task: PipelineTask) -> PipelineTask:
    """Names a task that KFP never answers from its cache, and lets it reach the store and MLflow.

    On a cluster it gets their addresses from a ConfigMap and the credentials from a Secret, where those are; without
    them a pod's own identity has to do. A run on one machine has what its environment says.
    """
    kubernetes.use_secret_as_env(task, STORE_SECRET, STORE_KEYS, optional=True)
    kubernetes.use_config_map_as_env(task, ENDPOINTS_MAP, {key: key for key in ENDPOINTS}, optional=True)
    return task.set_display_name(name).set_caching_options(False)
