"""PyTorchJob, of Kubeflow's training operator (kubeflow.org/v1): one Master and the rest Workers."""

from __future__ import annotations

from cosyflow.launch.kinds.kind import Ending
from cosyflow.launch.objects import Object, condition, given
from cosyflow.launch.pods import pod_template
from cosyflow.launch.processes import processes
from cosyflow.launch.spec import JobSpec

JOB_NAME_LABEL = "training.kubeflow.org/job-name"
DEADLINE = "active longer than specified deadline"
"""The operator's words for a job that ran for longer than it may."""


class PyTorchJob:
    """See JobKind."""

    name = "PyTorchJob"
    group = "kubeflow.org"
    version = "v1"
    plural = "pytorchjobs"
    container = "pytorch"

    def manifest(self, spec: JobSpec) -> Object:
        settings = spec.settings
        replicas = {"Master": self._replica(spec, 1)}
        if spec.num_nodes > 1:
            replicas["Worker"] = self._replica(spec, spec.num_nodes - 1)
        policy = {
            "cleanPodPolicy": settings.clean_pod_policy,
            "ttlSecondsAfterFinished": settings.ttl_seconds,
            "activeDeadlineSeconds": settings.deadline_seconds,
            "suspend": True if settings.queue else None,  # Kueue starts it
        }
        metadata: Object = {"name": spec.name, "namespace": spec.namespace, "labels": spec.job_labels}
        if spec.owner:
            metadata["ownerReferences"] = [dict(spec.owner)]
        return {
            "apiVersion": f"{self.group}/{self.version}",
            "kind": self.name,
            "metadata": metadata,
            "spec": {
                "nprocPerNode": str(processes(spec.gpus_per_node, spec.gpus_per_node)),
                "runPolicy": given(policy),
                "pytorchReplicaSpecs": replicas,
            },
        }

    def _replica(self, spec: JobSpec, count: int) -> Object:
        return {
            "replicas": count,
            "restartPolicy": "Never",  # the launcher starts all pods again, not the operator one of them
            "template": pod_template(spec, self.container),
        }

    def pod_selector(self, job: str) -> str:
        return f"{JOB_NAME_LABEL}={job}"

    def is_first_pod(self, job: str, pod: Object) -> bool:
        return bool(pod["metadata"]["name"] == f"{job}-master-0")

    def is_suspended(self, job: Object) -> bool:
        return bool(job["spec"].get("runPolicy", {}).get("suspend"))

    def ending(self, job: Object) -> Ending | None:
        if condition(job, "Succeeded"):
            return "succeeded"
        return "failed" if condition(job, "Failed") else None

    def reason(self, job: Object) -> str:
        failed = condition(job, "Failed") or {}
        return ": ".join(part for part in (failed.get("reason", ""), failed.get("message", "")) if part)

    def ran_too_long(self, job: Object) -> bool:
        return DEADLINE in self.reason(job)
