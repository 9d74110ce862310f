"""The Retrainings of a namespace of Kubernetes: listed, watched, and given a status and Events."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cosyflow.errors import CosyFlowError, OutageError
from pipelines.retraining.model import API_VERSION, GROUP, KIND, PLURAL, VERSION
from pipelines.retraining.status import Event, Object

CONNECT_SECONDS, READ_SECONDS = 5, 30
TIMEOUT = (CONNECT_SECONDS, READ_SECONDS)
WATCH_SECONDS = 300
FLUX_GROUP = "kustomize.toolkit.fluxcd.io"
COMPONENT = "cosyflow-retraining"
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
MISSING, TRANSIENT_STATUS = 404, (408, 409, 429)


@dataclass(frozen=True)
class Cluster:
    """One namespace, through the API server.

    Every method raises:
        OutageError: the server does not answer, or not yet.
        CosyFlowError: it refuses.
    """

    client: Any
    namespace: str

    @classmethod
    def connected(cls, namespace: str = "") -> Cluster:
        """That of the pod that this process runs in, else of KUBECONFIG.

        Args:
            namespace: by default the pod's, else that of the kubeconfig.
        """
        from kubernetes import client, config
        from kubernetes.config.config_exception import ConfigException

        try:
            if os.environ.get("KUBERNETES_SERVICE_HOST") and not os.environ.get("KUBECONFIG"):
                configuration = client.Configuration()
                config.load_incluster_config(client_configuration=configuration)
                own = OWN_NAMESPACE.read_text(encoding="utf-8").strip()
                return cls(client.ApiClient(configuration), namespace or own)
            file = os.environ.get("KUBECONFIG")
            _, context = config.list_kube_config_contexts(file)
            own = context["context"].get("namespace", "default")
            return cls(config.new_client_from_config(file), namespace or own)
        except (ConfigException, OSError) as error:
            raise CosyFlowError(
                f"no cluster: not in a pod, and no kubeconfig can be read ({error}); set KUBECONFIG"
            ) from error

    def retrainings(self) -> list[Object]:
        """All of them, as the server has them."""
        with _meaning("list the Retrainings"):
            listed = self._custom.list_namespaced_custom_object(**self._where, _request_timeout=TIMEOUT)
        return [{"apiVersion": API_VERSION, "kind": KIND, **item} for item in listed["items"]]

    def write_status(self, item: Mapping[str, Any], status: Object) -> None:
        """Writes the whole status of a Retraining; one that is gone has none."""
        gone = {key: None for key in item.get("status", {}) if key not in status}
        name = item["metadata"]["name"]
        with _meaning(f"write the status of Retraining {name}"), _unless_missing():
            self._custom.patch_namespaced_custom_object_status(
                **self._where, name=name, body={"status": {**status, **gone}}, _request_timeout=TIMEOUT
            )

    def report(self, item: Mapping[str, Any], event: Event, now: datetime) -> None:
        """Makes an Event of a Retraining; the same one within an hour is none."""
        from kubernetes import client

        metadata = item["metadata"]
        about = f"{metadata['uid']} {event.reason} {event.message} {now:%Y%m%d%H}"
        moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "metadata": {
                "name": f"{metadata['name']}.{hashlib.sha256(about.encode()).hexdigest()[:16]}",
                "namespace": self.namespace,
            },
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": metadata["name"],
                "namespace": self.namespace,
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": event.kind,
            "reason": event.reason,
            "message": event.message[:1024],
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        with _meaning(f"make an Event of Retraining {metadata['name']}"):
            client.CoreV1Api(self.client).create_namespaced_event(self.namespace, body, _request_timeout=TIMEOUT)

    def revision(self, namespace: str, name: str) -> str:
        """The commit that a Kustomization of Flux applies; "" where there is none, or none that may be read."""
        where = {"group": FLUX_GROUP, "version": "v1", "plural": "kustomizations", "namespace": namespace}
        try:
            with _meaning(f"read the Kustomization {namespace}/{name}"):
                found = self._custom.get_namespaced_custom_object(**where, name=name, _request_timeout=TIMEOUT)
        except CosyFlowError:
            return ""
        return str((found.get("status") or {}).get("lastAttemptedRevision", "")).rpartition(":")[2]

    def watch(self, changed: Callable[[], None], ended: Callable[[], bool]) -> None:
        """Calls `changed` when a Retraining comes, goes, or is declared anew, until `ended` says so.

        A connection that ends or fails is made again; whoever looks from time to time misses nothing by that.
        """
        from kubernetes.watch import Watch

        known: dict[str, Any] = {}
        while not ended():
            try:
                watch = Watch()
                for event in watch.stream(
                    self._custom.list_namespaced_custom_object,
                    **self._where,
                    timeout_seconds=WATCH_SECONDS,
                    _request_timeout=(CONNECT_SECONDS, WATCH_SECONDS + READ_SECONDS),
                ):
                    metadata = event["object"]["metadata"]
                    declared = (event["type"] == "DELETED", metadata.get("generation"), metadata.get("annotations"))
                    if known.get(metadata["uid"]) != declared:
                        known[metadata["uid"]] = declared
                        changed()
                    if ended():
                        watch.stop()
            except Exception:  # whatever it is, a connection or an answer: the next one may be good
                time.sleep(1)

    @property
    def _custom(self) -> Any:
        from kubernetes import client

        return client.CustomObjectsApi(self.client)

    @property
    def _where(self) -> dict[str, str]:
        return {"group": GROUP, "version": VERSION, "namespace": self.namespace, "plural": PLURAL}


@contextmanager
def _meaning(doing: str) -> Iterator[None]:
    """Turns the client's exceptions into ours."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        text = f"cannot {doing}: the API server answers {error.status}: {error.body or error.reason}"
        if not error.status or error.status >= 500 or error.status in TRANSIENT_STATUS:
            raise OutageError(text) from error
        raise CosyFlowError(text) from error
    except (HTTPError, OSError) as error:
        raise OutageError(f"cannot {doing}: {error}") from error


@contextmanager
def _unless_missing() -> Iterator[None]:
    from kubernetes.client.exceptions import ApiException

    try:
        yield
    except ApiException as error:
        if error.status != MISSING:
            raise
