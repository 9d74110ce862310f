"""One of several controllers works: the client's leader election, on a Lease, which it has no lock for."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from cosyflow.progress import say
from pipelines.retraining.cluster import TIMEOUT, Cluster

LEASE = "cosyflow-retraining"
LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS = 15, 10, 2
UNKNOWN_STATUS = 0


class LeaseLock:
    """A Lease as the lock that `kubernetes.leaderelection` asks for.

    Attributes:
        identity: of this process.
    """

    def __init__(self, cluster: Cluster, identity: str, name: str = LEASE) -> None:
        from kubernetes import client

        self.name, self.namespace, self.identity = name, cluster.namespace, identity
        self._api = client.CoordinationV1Api(cluster.client)
        self._lease: Any = None
        self._renewed = -float(LEASE_SECONDS)

    def get(self, name: str, namespace: str) -> tuple[bool, Any]:
        """Whether there is one, and what it says; else why not."""
        from kubernetes.client.exceptions import ApiException
        from kubernetes.leaderelection.leaderelectionrecord import LeaderElectionRecord
        from urllib3.exceptions import HTTPError

        try:
            self._lease = self._api.read_namespaced_lease(name, namespace, _request_timeout=TIMEOUT)
        except (ApiException, HTTPError, OSError) as error:
            status = getattr(error, "status", None) or UNKNOWN_STATUS
            return False, SimpleNamespace(body=json.dumps({"code": status}), reason=str(error))
        spec = self._lease.spec
        if not spec.holder_identity:
            return True, None  # it was given back
        return True, LeaderElectionRecord(
            spec.holder_identity, spec.lease_duration_seconds, str(spec.acquire_time), str(spec.renew_time)
        )

    def create(self, name: str, namespace: str, election_record: Any) -> bool:
        body = {"metadata": {"name": name, "namespace": namespace}, "spec": _spec(election_record)}
        return self._took(lambda: self._api.create_namespaced_lease(namespace, body, _request_timeout=TIMEOUT))

    def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        """Only the Lease that was read is replaced: of two that want it at the same time one is refused."""
        version = self._lease.metadata.resource_version
        metadata = {"name": name, "namespace": namespace, "resourceVersion": version}
        body = {"metadata": metadata, "spec": _spec(updated_record)}
        return self._took(lambda: self._api.replace_namespaced_lease(name, namespace, body, _request_timeout=TIMEOUT))

    def give_back(self) -> None:
        """Lets another one lead at once; where that cannot be said now, the Lease ends by itself."""
        is_there, record = self.get(self.name, self.namespace)
        if is_there and record and record.holder_identity == self.identity:
            record.holder_identity = ""
            self.update(self.name, self.namespace, record)
        self._renewed = -float(LEASE_SECONDS)

    @property
    def holds(self) -> bool:
        """Whether nobody else can lead yet, by this process's own clock."""
        return time.monotonic() - self._renewed < RENEW_SECONDS

    def _took(self, write: Callable[[], Any]) -> bool:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        began = time.monotonic()
        try:
            write()
        except (ApiException, HTTPError, OSError):
            return False
        self._renewed = began
        return True


def lead(lock: LeaseLock, work: Callable[[], None], lost: Callable[[], None]) -> None:
    """Waits until this process leads, does the work in a thread, and returns when it leads no more.

    Args:
        lost: called then.
    """
    from kubernetes.leaderelection.electionconfig import Config
    from kubernetes.leaderelection.leaderelection import LeaderElection

    logging.getLogger().setLevel(logging.WARNING)  # the module has it say each renewal
    say("reconcile", f"{lock.identity} wants to lead {lock.namespace}")
    LeaderElection(Config(lock, LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS, work, lost)).run()


def _spec(record: Any) -> dict[str, Any]:
    return {
        "holderIdentity": record.holder_identity,
        "leaseDurationSeconds": int(record.lease_duration),
        "acquireTime": _moment(record.acquire_time),
        "renewTime": _moment(record.renew_time),
    }


def _moment(text: str) -> str:
    """The client's time, which is this machine's where it names no zone, as a Lease has it."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
