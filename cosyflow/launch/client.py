"""The calls to the API server, and what their failures mean: unreachable for now, not there, taken, or refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosyflow.errors import CosyFlowError
from cosyflow.launch.kinds.kind import JobKind
from cosyflow.launch.objects import Object
from cosyflow.launch.settings import LAUNCHER_FOLDER

LAUNCHER_ACCOUNT = Path(LAUNCHER_FOLDER)
OWN_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
POD_NAME_VARIABLES = ("KFP_POD_NAME", "HOSTNAME")
CONNECT_SECONDS = 5
READ_SECONDS = 30
SILENT_LOG_SECONDS = 120
"""After so much silence a log's connection is made anew, as it may be dead."""
TRANSIENT_STATUS = (408, 429)
MISSING, CONFLICT, GONE = 404, 409, 410
NOT_STARTED = 400


class Unreachable(Exception):  # noqa: N818 - a state of the server
    """The API server did not answer; it may do so later."""


class Taken(Exception):  # noqa: N818
    """There is an object of this name already."""


@dataclass(frozen=True)
class LogLine:
    """A line of a container: when the node got it (RFC 3339, UTC, nanoseconds), and its text."""

    time: str
    text: str


def in_a_pod() -> bool:
    """Whether this process runs in a pod that may talk to its cluster."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and _account() is not None


def _account() -> Path | None:
    """The folder with token, certificate and namespace: of the account that may make jobs, else the pod's own."""
    return next((folder for folder in (LAUNCHER_ACCOUNT, OWN_ACCOUNT) if (folder / "token").exists()), None)


class Cluster:
    """The jobs of a kind in one namespace: of the cluster that KUBECONFIG names, the pod's own, or the kubeconfig's.

    In a pod it speaks for the launcher's account where that one's token is mounted, else for the pod's own.

    Raises (every method):
        Unreachable: see there.
        CosyFlowError: the server refuses the call; the message says what it answered.
    """

    def __init__(self, kind: JobKind, namespace: str = "") -> None:
        from kubernetes import client

        api_client, default = _connect()
        self.kind = kind
        self.namespace = namespace or default
        self._jobs = client.CustomObjectsApi(api_client)
        self._core = client.CoreV1Api(api_client)
        self._where = {
            "group": kind.group,
            "version": kind.version,
            "namespace": self.namespace,
            "plural": kind.plural,
        }

    def create(self, manifest: Object) -> Object:
        """Makes a job. Raises Taken when there is one of its name."""
        with _meaning(f"create the {self.kind.name} {manifest['metadata']['name']}"):
            created: Object = self._jobs.create_namespaced_custom_object(
                **self._where, body=manifest, _request_timeout=(CONNECT_SECONDS, READ_SECONDS)
            )
        return created

    def get(self, name: str) -> Object | None:
        with _meaning(f"get the {self.kind.name} {name}"), _none_on(MISSING) as found:
            found.append(
                self._jobs.get_namespaced_custom_object(
                    **self._where, name=name, _request_timeout=(CONNECT_SECONDS, READ_SECONDS)
                )
            )
        return found[0] if found else None

    def delete(self, name: str, uid: str) -> None:
        """Removes a job with its pods, unless it is another of the same name; none is no error."""
        with _meaning(f"delete the {self.kind.name} {name}"), _none_on(MISSING, CONFLICT):
            self._jobs.delete_namespaced_custom_object(
                **self._where,
                name=name,
                body={"propagationPolicy": "Background", "preconditions": {"uid": uid}},
                _request_timeout=(CONNECT_SECONDS, READ_SECONDS),
            )

    def jobs(self, selector: str) -> list[Object]:
        with _meaning(f"list {self.kind.name}s"):
            listed = self._jobs.list_namespaced_custom_object(
                **self._where, label_selector=selector, _request_timeout=(CONNECT_SECONDS, READ_SECONDS)
            )
        return list(listed["items"])

    def wait_for_change(self, job: Object, seconds: int) -> None:
        """Returns when a job has changed, when the server has forgotten how it was, or after some seconds."""
        from kubernetes.watch import Watch

        metadata = job["metadata"]
        with _meaning(f"watch the {self.kind.name} {metadata['name']}"), _none_on(GONE):
            for _ in Watch().stream(
                self._jobs.list_namespaced_custom_object,
                **self._where,
                field_selector=f"metadata.name={metadata['name']}",
                resource_version=metadata["resourceVersion"],
                timeout_seconds=seconds,
                _request_timeout=(CONNECT_SECONDS, seconds + READ_SECONDS),
            ):
                return

    def pods(self, name: str) -> list[Object]:
        """The pods of a job, by name."""
        with _meaning(f"list the pods of {name}"):
            listed = self._read(
                self._core.list_namespaced_pod, self.namespace, label_selector=self.kind.pod_selector(name)
            )
        return sorted(listed["items"], key=lambda pod: str(pod["metadata"]["name"]))

    def warnings(self, name: str) -> list[str]:
        """What the cluster complained about of an object, oldest first."""
        with _meaning(f"list the events of {name}"):
            listed = self._read(
                self._core.list_namespaced_event,
                self.namespace,
                field_selector=f"involvedObject.name={name},type=Warning",
            )
        events = sorted(listed["items"], key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return [f"{event.get('reason', '')}: {' '.join(event.get('message', '').split())}" for event in events]

    def tail(self, pod: str, lines: int) -> list[str]:
        """The last lines that a pod printed; none when it has not started or is gone."""
        from kubernetes.client.exceptions import ApiException

        with _meaning(f"read the log of {pod}"):
            try:
                response = self._core.read_namespaced_pod_log(
                    pod,
                    self.namespace,
                    container=self.kind.container,
                    tail_lines=lines,
                    _preload_content=False,
                    _request_timeout=(CONNECT_SECONDS, READ_SECONDS),
                )
            except ApiException as error:
                if error.status in (NOT_STARTED, MISSING):
                    return []
                raise
            return bytes(response.data).decode("utf-8", "replace").splitlines()

    def follow_log(self, pod: str, since: str = "") -> Iterator[LogLine]:
        """The lines of a running pod until its end, or until the connection ends.

        Args:
            since: lines up to this time (RFC 3339) are left out, as whole seconds go.
        """
        from kubernetes.watch.watch import iter_resp_lines

        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        query = [("container", self.kind.container), ("follow", "true"), ("timestamps", "true")]
        query += [("sinceTime", since)] if since else []
        with _meaning(f"follow the log of {pod}"):
            # The generated method has no sinceTime.
            response = self._core.api_client.call_api(
                path,
                "GET",
                query_params=query,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=(CONNECT_SECONDS, SILENT_LOG_SECONDS),
            )
            try:
                for line in iter_resp_lines(response):
                    time, _, text = line.partition(" ")
                    yield LogLine(time, text)
            finally:
                response.close()
                response.release_conn()

    def own_pod(self) -> Object | None:
        """The pod that this process runs in; None outside of a cluster, or where no variable has its name."""
        if not in_a_pod():
            return None
        for variable in POD_NAME_VARIABLES:
            name = os.environ.get(variable, "")
            if name:
                with _meaning(f"get the pod {name}"), _none_on(MISSING) as found:
                    found.append(self._read(self._core.read_namespaced_pod, name, self.namespace))
                if found:
                    return found[0]
        return None

    @staticmethod
    def _read(call: Any, *arguments: str, **options: Any) -> Object:
        """The answer as it was sent; the client's own objects would rename its keys."""
        response = call(*arguments, _preload_content=False, _request_timeout=(CONNECT_SECONDS, READ_SECONDS), **options)
        answer: Object = json.loads(response.data)
        return answer


def _connect() -> tuple[Any, str]:
    """A client, and the namespace to work in where none is named."""
    from kubernetes import client, config
    from kubernetes.config.config_exception import ConfigException
    from kubernetes.config.incluster_config import InClusterConfigLoader

    try:
        account = _account()
        if account is not None and in_a_pod() and not os.environ.get("KUBECONFIG"):
            configuration = client.Configuration()
            loader = InClusterConfigLoader(str(account / "token"), str(account / "ca.crt"))
            loader.load_and_set(configuration)
            namespace = (account / "namespace").read_text(encoding="utf-8").strip()
            return client.ApiClient(configuration), namespace
        file = os.environ.get("KUBECONFIG")  # the client itself reads this once, when it is imported
        _, context = config.list_kube_config_contexts(file)
        return config.new_client_from_config(file), context["context"].get("namespace", "default")
    except ConfigException as error:
        raise CosyFlowError(
            f"no cluster: not in a pod, and no kubeconfig can be read ({error}); set KUBECONFIG"
        ) from None


@contextmanager
def _meaning(doing: str) -> Iterator[None]:
    """Turns the client's many exceptions into ours."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        status, message = error.status or 0, _message(error)
        if status == CONFLICT:
            raise Taken(message) from None
        if status == 0 or status >= 500 or status in TRANSIENT_STATUS:
            raise Unreachable(f"cannot {doing}: {status} {message}") from None
        raise CosyFlowError(f"cannot {doing}: the API server answers {status}: {message}") from None
    except (HTTPError, OSError, json.JSONDecodeError) as error:
        raise Unreachable(f"cannot {doing}: {error}") from None


def _message(error: Any) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)


@contextmanager
def _none_on(*answers: int) -> Iterator[list[Object]]:
    """A list for what is found; these answers of the server leave it empty."""
    from kubernetes.client.exceptions import ApiException

    found: list[Object] = []
    try:
        yield found
    except ApiException as error:
        if error.status not in answers:
            raise
