"""What a training job's pods get that a recipe does not say, from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cosyflow import storage
from cosyflow.config import yaml_text
from cosyflow.errors import Problem, RefusalError
from cosyflow.launch.objects import Object
from cosyflow.redaction import VARIABLES as SECRETS

LAUNCHER_SECRET = "cosyflow-launcher-token"  # noqa: S105 - a name
LAUNCHER_FOLDER = "/var/run/secrets/cosyflow/launcher"
"""Where a task has the token of the account that may make jobs (k8s/base/launcher.yaml)."""
LOGINS_SECRET = "cosyflow-logins"  # noqa: S105 - a name
"""Has mlflow_server.LOGIN_VARIABLES, which tasks and pods get as variables, where it is there."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class JobSettings:
    """The pods of a job, and how long the launcher is patient. What is written as in a Pod has a Pod's form."""

    namespace: str = ""
    """Empty: the launcher's own, or the one of the kubeconfig's context."""
    image: str = ""
    """Empty: the image of the launcher's own pod."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=lambda: ["torchrun"])
    """What starts the processes of a node as the PET_* variables say."""
    service_account: str = "default"
    run_as_user: int | None = None
    """User id of the processes; by default the image's, which must not be root."""
    read_only_root: bool = True
    """Processes can write below /tmp and what is mounted, and nowhere else."""
    queue: str = ""
    """Kueue's LocalQueue."""

    resources: Object = field(default_factory=dict)
    gpu_resource: str = "nvidia.com/gpu"
    shm_size: str = "8Gi"
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[Object] = field(default_factory=list)
    affinity: Object = field(default_factory=dict)
    env: list[Object] = field(default_factory=list)
    volumes: list[Object] = field(default_factory=list)
    volume_mounts: list[Object] = field(default_factory=list)

    s3_endpoint: str = ""
    """The store as the pods reach it. Empty: as the launcher does."""
    s3_secret: str = "mlpipeline-minio-artifact"  # noqa: S105 - a name
    """Secret with `accesskey` and `secretkey`; empty: the pods' own identity."""
    logins_secret: str = LOGINS_SECRET
    """Secret with LOGIN_VARIABLES, which need not be there; empty: none."""

    clean_pod_policy: Literal["Running", "All", "None"] = "Running"
    ttl_seconds: int = 86_400
    """How long an ended job stays to be looked at."""
    deadline_seconds: int | None = None
    """The job is ended when it runs for longer; None: never."""
    max_restarts: int = 3
    """How often all pods are started again from the last checkpoint."""
    pending_seconds: float = 1800.0
    """How long pods may wait for a place; waiting in a queue does not count."""
    pull_seconds: float = 30.0
    """How long an image that cannot be pulled is tried."""
    outage_seconds: float = 600.0
    """How long the API server may be unreachable."""


def read_settings(uri: str) -> JobSettings:
    """Reads a YAML file of settings; none for an empty `uri`.

    Raises:
        RefusalError: it is not YAML, or keys are unknown or have wrong values.
        CosyFlowError: it cannot be read.
    """
    if not uri:
        return JobSettings()
    try:
        values = yaml_text.load(storage.read_text(uri)) or {}
    except yaml.YAMLError as error:
        raise RefusalError([Problem("job", f"{uri}: not YAML: {error}; correct the file")]) from error
    try:
        settings = TypeAdapter(JobSettings).validate_python(values)
    except ValidationError as invalid:
        problems = [
            Problem("job", f"{uri}: {'.'.join(map(str, error['loc']))}: {error['msg']}")
            for error in invalid.errors(include_url=False)
        ]
        raise RefusalError(problems) from invalid
    named = [entry["name"] for entry in settings.env if entry.get("name") in SECRETS and "value" in entry]
    if named:
        text = "would stand in the job's manifest; refer to a Secret: valueFrom: {secretKeyRef: {name: ..., key: ...}}"
        raise RefusalError(Problem("job", f"{uri}: env: the value of {name} {text}") for name in named)
    try:
        devices_of(settings)
    except (AttributeError, TypeError, ValueError) as error:
        text = f"{uri}: resources: a pod's devices are a whole number, e.g. limits: {{nvidia.com/gpu: 8}} ({error})"
        raise RefusalError([Problem("job", text)]) from error
    return settings


def devices_of(settings: JobSettings) -> int:
    """The devices of a pod: what its resources say of a name with a slash (nvidia.com/gpu), else 1."""
    for kind in ("limits", "requests"):
        for name, amount in (settings.resources.get(kind) or {}).items():
            if "/" in name:
                return int(amount)
    return 1


def with_task_config(settings: JobSettings, task: Mapping[str, Any]) -> JobSettings:
    """The settings, and for what they leave out what a KFP task was given (the fields of `dsl.TaskConfig`).

    All but the launcher's token: what trains makes no jobs.
    """
    from dataclasses import replace

    mounts = task.get("volume_mounts") or []
    kept = [mount for mount in mounts if mount["mountPath"].rstrip("/") != LAUNCHER_FOLDER]
    withheld = {mount["name"] for mount in mounts if mount not in kept} | {LAUNCHER_SECRET}
    kept = [mount for mount in kept if mount["name"] not in withheld]
    return replace(
        settings,
        resources=settings.resources or task.get("resources") or {},
        node_selector=settings.node_selector or task.get("node_selector") or {},
        affinity=settings.affinity or task.get("affinity") or {},
        tolerations=[*(task.get("tolerations") or []), *settings.tolerations],
        env=merge_env(task.get("env") or [], settings.env),
        volumes=[
            *(volume for volume in task.get("volumes") or [] if volume["name"] not in withheld),
            *settings.volumes,
        ],
        volume_mounts=[*kept, *settings.volume_mounts],
    )


def merge_env(*lists: list[Object]) -> list[Object]:
    """Environment entries by name; a later one takes the place of an earlier one."""
    return list({entry["name"]: entry for entries in lists for entry in entries}.values())
