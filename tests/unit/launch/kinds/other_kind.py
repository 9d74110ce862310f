"""A kind of job that no cluster has: other paths, names, labels and conditions than those of the kinds that exist."""

from __future__ import annotations

from cosyflow.launch.kinds.kind import Ending
from cosyflow.launch.objects import Object, condition
from cosyflow.launch.pods import pod_template
from cosyflow.launch.spec import JobSpec

POD_LABEL = "jobs.example/job-name"


class OtherKind:
    name = "OtherJob"
    group = "jobs.example"
    version = "v1"
    plural = "otherjobs"
    container = "node"

    def manifest(self, spec: JobSpec) -> Object:
        return {
            "apiVersion": f"{self.group}/{self.version}",
            "kind": self.name,
            "metadata": {"name": spec.name, "namespace": spec.namespace, "labels": spec.job_labels},
            "spec": {"numNodes": spec.num_nodes, "suspend": False, "template": pod_template(spec, self.container)},
        }

    def pod_selector(self, job: str) -> str:
        return f"{POD_LABEL}={job}"

    def is_first_pod(self, job: str, pod: Object) -> bool:
        return str(pod["metadata"]["name"]).startswith(f"{job}-node-0-0-")

    def is_suspended(self, job: Object) -> bool:
        return bool(job["spec"]["suspend"])

    def ending(self, job: Object) -> Ending | None:
        if condition(job, "Complete"):
            return "succeeded"
        return "failed" if condition(job, "Failed") else None

    def reason(self, job: Object) -> str:
        return str((condition(job, "Failed") or {}).get("message", ""))

    def ran_too_long(self, job: Object) -> bool:
        return (condition(job, "Failed") or {}).get("reason") == "DeadlineExceeded"
