"""The manifest of a PyTorchJob: a function of what is asked for, and of nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from cosyflow.launch.processes import processes
from cosyflow.launch.pytorchjob.names import attempt_name
from cosyflow.launch.pytorchjob.settings import JobSettings, Object, merge_env

GROUP, VERSION, PLURAL = "kubeflow.org", "v1", "pytorchjobs"
CONTAINER = "pytorch"
"""The operator looks for a container of this name."""
JOB_LABEL = "cosyflow.dev/job"
RUN_LABEL = "cosyflow.dev/run"
ATTEMPT_LABEL = "cosyflow.dev/attempt"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_S3"
SECRET_KEYS = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"}
SHARED_MEMORY = {"name": "shared-memory", "mountPath": "/dev/shm"}  # noqa: S108 - where the loaders' processes share

TEMPORARY_FILES = {"name": "temporary-files", "mountPath": "/tmp"}  # noqa: S108 - of the pod alone


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """One attempt of a training job.

    Attributes:
        base: name of the job without its attempt (names.base_name).
        run: who started it; only the same run goes on with it.
        module: what every process runs, with `arguments`.
        num_nodes: pods: one Master and the rest Workers.
        gpus_per_node: devices and processes of a pod; 0 is one process without a device.
        env: variables beside those of `settings`, which win.
        owner: the object with which the job is deleted, as an ownerReference.
    """

    base: str
    namespace: str
    run: str
    attempt: int
    module: str
    arguments: tuple[str, ...]
    num_nodes: int
    gpus_per_node: int
    settings: JobSettings
    env: tuple[tuple[str, str], ...] = ()
    owner: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        return attempt_name(self.base, self.attempt)


def build(spec: JobSpec) -> Object:
    """The PyTorchJob of a spec."""
    settings = spec.settings
    replicas = {"Master": _replica(spec, 1)}
    if spec.num_nodes > 1:
        replicas["Worker"] = _replica(spec, spec.num_nodes - 1)
    policy = {
        "cleanPodPolicy": settings.clean_pod_policy,
        "ttlSecondsAfterFinished": settings.ttl_seconds,
        "activeDeadlineSeconds": settings.deadline_seconds,
        "suspend": True if settings.queue else None,  # Kueue starts it
    }
    metadata: Object = {"name": spec.name, "namespace": spec.namespace, "labels": _labels(spec)}
    if settings.queue:
        metadata["labels"] |= {QUEUE_LABEL: settings.queue}
    if spec.owner:
        metadata["ownerReferences"] = [dict(spec.owner)]
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "PyTorchJob",
        "metadata": metadata,
        "spec": {
            "nprocPerNode": str(processes(spec.gpus_per_node, spec.gpus_per_node)),
            "runPolicy": _given(policy),
            "pytorchReplicaSpecs": replicas,
        },
    }


def to_yaml(manifest: Object) -> str:
    """A manifest as YAML, with what occurs twice written twice."""
    return yaml.safe_dump(json.loads(json.dumps(manifest)), sort_keys=False)


def _labels(spec: JobSpec) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "cosyflow",
        "app.kubernetes.io/component": "training",
        JOB_LABEL: spec.base,
        RUN_LABEL: spec.run,
        ATTEMPT_LABEL: str(spec.attempt),
    }


def _replica(spec: JobSpec, count: int) -> Object:
    settings = spec.settings
    pod = {
        "automountServiceAccountToken": False,
        "serviceAccountName": settings.service_account,
        "securityContext": _given(
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
        "containers": [_container(spec)],
        "volumes": [
            {"name": SHARED_MEMORY["name"], "emptyDir": {"medium": "Memory", "sizeLimit": settings.shm_size}},
            *([{"name": TEMPORARY_FILES["name"], "emptyDir": {}}] if _makes_tmp(settings) else []),
            *settings.volumes,
        ],
    }
    return {
        "replicas": count,
        "restartPolicy": "Never",  # the launcher starts all pods again, not the operator one of them
        "template": {
            "metadata": {"labels": _labels(spec) | NO_SIDECAR, "annotations": dict(NO_SIDECAR)},
            "spec": _given(pod),
        },
    }


def _container(spec: JobSpec) -> Object:
    settings = spec.settings
    container = {
        "name": CONTAINER,
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
            *settings.volume_mounts,
        ],
    }
    return _given(container)


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
    return merge_env(ours, settings.env)


def _resources(settings: JobSettings, gpus: int) -> Object:
    """The resources of a pod; of a device the number is always the one that is asked for."""
    given = {kind: dict(settings.resources.get(kind) or {}) for kind in ("requests", "limits")}
    devices = [name for amounts in given.values() for name in amounts if "/" in name]
    device = devices[0] if devices else settings.gpu_resource
    for amounts in given.values():
        for name in devices:
            amounts.pop(name, None)
        if gpus:
            amounts[device] = str(gpus)
    return _given(given)


def _given(values: dict[str, Any]) -> Object:
    """What is there: without None and empty lists and mappings."""
    return {name: value for name, value in values.items() if value not in (None, [], {})}
