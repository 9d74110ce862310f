"""The pods of a training job: a template that is a function of what is asked for, and of nothing else."""

from __future__ import annotations

import json

import yaml

from cosyflow.launch.objects import Object, given
from cosyflow.launch.settings import JobSettings, merge_env
from cosyflow.launch.spec import JobSpec
from cosyflow.mlflow_server import LOGIN_VARIABLES
from cosyflow.training.parent import TOKEN_FOLDER

NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_S3"
SECRET_KEYS = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"}
SHARED_MEMORY = {"name": "shared-memory", "mountPath": "/dev/shm"}  # noqa: S108 - where the loaders' processes share
TEMPORARY_FILES = {"name": "temporary-files", "mountPath": "/tmp"}  # noqa: S108 - of the pod alone
CLUSTER_TOKEN = {"name": "cluster-token", "mountPath": TOKEN_FOLDER, "readOnly": True}
TOKEN_SECONDS = 3600
"""How long a token lasts; the kubelet puts a new one in its place before."""


def pod_template(spec: JobSpec, container: str) -> Object:
    """The template of all pods of a job.

    Args:
        container: name of the container that trains.
    """
    settings = spec.settings
    pod = {
        "automountServiceAccountToken": False,
        "serviceAccountName": settings.service_account,
        "securityContext": given(
            {
                "runAsNonRoot": True,
                "runAsUser": settings.run_as_user,
                "fsGroup": settings.run_as_user,
                "seccompProfile": {"type": "RuntimeDefault"},
            }
        ),
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "nodeSelector": settings.node_selector,
        "tolerations": settings.tolerations,
        "affinity": settings.affinity,
        "containers": [_container(spec, container)],
        "volumes": [
            {"name": SHARED_MEMORY["name"], "emptyDir": {"medium": "Memory", "sizeLimit": settings.shm_size}},
            *([{"name": TEMPORARY_FILES["name"], "emptyDir": {}}] if _makes_tmp(settings) else []),
            *([_token_volume()] if spec.asks_cluster else []),
            *settings.volumes,
        ],
    }
    return {
        "metadata": {"labels": spec.labels | NO_SIDECAR, "annotations": dict(NO_SIDECAR)},
        "spec": given(pod),
    }


def to_yaml(manifest: Object) -> str:
    """A manifest as YAML, with what occurs twice written twice."""
    return yaml.safe_dump(json.loads(json.dumps(manifest)), sort_keys=False)


def _container(spec: JobSpec, name: str) -> Object:
    settings = spec.settings
    container = {
        "name": name,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": settings.command,
        "args": ["-m", spec.module, *spec.arguments],
        "env": _environment(spec),
        "resources": _resources(settings, spec.gpus_per_node),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": settings.read_only_root,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            dict(SHARED_MEMORY),
            *([dict(TEMPORARY_FILES)] if _makes_tmp(settings) else []),
            *([dict(CLUSTER_TOKEN)] if spec.asks_cluster else []),
            *settings.volume_mounts,
        ],
    }
    return given(container)


def _token_volume() -> Object:
    """The token of the pods' account and the certificate of the API server, as the kubelet renews them."""
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    ]
    return {"name": CLUSTER_TOKEN["name"], "projected": {"sources": sources}}


def _makes_tmp(settings: JobSettings) -> bool:
    """A root that is only read needs a /tmp of its own, unless the settings mount one."""
    mounted = {mount["mountPath"].rstrip("/") for mount in settings.volume_mounts}
    return settings.read_only_root and TEMPORARY_FILES["mountPath"] not in mounted


def _environment(spec: JobSpec) -> list[Object]:
    settings = spec.settings
    ours: list[Object] = [{"name": name, "value": value} for name, value in spec.env]
    if settings.s3_endpoint:
        ours.append({"name": ENDPOINT_VARIABLE, "value": settings.s3_endpoint})
    if settings.s3_secret:
        ours += [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": settings.s3_secret, "key": key}}}
            for name, key in SECRET_KEYS.items()
        ]
    if settings.logins_secret:
        ours += [_optional(name, settings.logins_secret) for name in LOGIN_VARIABLES]
    return merge_env(ours, settings.env)


def _optional(variable: str, secret: str) -> Object:
    """A variable from the key of its name in a Secret, if there is one."""
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": variable, "optional": True}}}


def _resources(settings: JobSettings, gpus: int) -> Object:
    """The resources of a pod; of a device the number is always the one that is asked for."""
    amounts = {kind: dict(settings.resources.get(kind) or {}) for kind in ("requests", "limits")}
    devices = [name for named in amounts.values() for name in named if "/" in name]
    device = devices[0] if devices else settings.gpu_resource
    for named in amounts.values():
        for name in devices:
            named.pop(name, None)
        if gpus:
            named[device] = str(gpus)
    return given(amounts)
