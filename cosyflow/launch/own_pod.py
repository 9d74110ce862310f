"""A step's own pod on a cluster, which may be labelled with what is known only when the step runs."""

from __future__ import annotations

import os
from pathlib import Path

from cosyflow.launch.spec import label_value

SUBSET_LABEL = "cosyflow.dev/subset"
POD_NAME_VARIABLE = "KFP_POD_NAME"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PATIENCE_SECONDS = 5


def label_own_pod(name: str, value: str) -> str:
    """Labels the pod that this process runs in, so that a selector finds the pods of one subset.

    Kubeflow Pipelines fixes a step's labels when the pipeline is compiled, before it is known which subsets there are.

    Returns:
        Why the label could not be given; empty when it was, or outside of a pod of Kubeflow Pipelines. A label is never
        worth a failure.
    """
    pod = os.environ.get(POD_NAME_VARIABLE)
    if not pod or not NAMESPACE_FILE.exists():
        return ""
    from kubernetes import client, config

    try:
        config.load_incluster_config()
        client.CoreV1Api().patch_namespaced_pod(
            pod,
            NAMESPACE_FILE.read_text(encoding="utf-8").strip(),
            {"metadata": {"labels": {name: label_value(value)}}},
            _request_timeout=PATIENCE_SECONDS,
        )
    except Exception as error:  # from refused rights to a server that does not answer, of several libraries
        reason = getattr(error, "reason", None) or error
        return f"the label {name} could not be given to {pod}: {reason}; the account needs the verb patch on pods"
    return ""
