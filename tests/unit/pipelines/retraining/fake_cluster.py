"""Retrainings of a namespace in memory; their status is held against the resource's schema, as an API server does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import deepcopy
from datetime import datetime
from typing import Any

import jsonschema

from cosyflow.errors import OutageError
from pipelines.retraining.schema import definition
from pipelines.retraining.status import Event

SCHEMA = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
RUN = {"data_root": "s3://bucket/data", "recipe": "cosyvoice2.tiny"}


class FakeCluster:
    """Takes the place of `pipelines.retraining.cluster.Cluster`; `away` has it answer nothing."""

    namespace = "speech"

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[str, Event]] = []
        self.away = False
        self.revisions: dict[tuple[str, str], str] = {}
        self.changed: Callable[[], None] = lambda: None

    def declare(self, name: str = "voice", commit: str = "", **spec: Any) -> None:
        """As `kubectl apply`: another specification has another generation."""
        whole = {"run": {**RUN, **spec.pop("run", {})}, **spec}
        known = self.items.get(name, {})
        metadata = dict(known.get("metadata") or {"name": name, "uid": f"uid-{name}", "generation": 0})
        metadata["generation"] += whole != known.get("spec")
        metadata["resourceVersion"] = str(metadata["generation"])
        metadata["annotations"] = {"cosyflow.dev/commit": commit} if commit else {}
        self.items[name] = {
            "apiVersion": "cosyflow.dev/v1alpha1", "kind": "Retraining", "metadata": metadata, "spec": whole,
            **({"status": known["status"]} if "status" in known else {}),
        }  # fmt: skip
        self.changed()

    def retrainings(self) -> list[dict[str, Any]]:
        if self.away:
            raise OutageError("cannot list the Retrainings: it is away")
        return deepcopy(list(self.items.values()))

    def write_status(self, item: dict[str, Any], status: dict[str, Any]) -> None:
        jsonschema.validate(status, _closed(SCHEMA))
        if known := self.items.get(item["metadata"]["name"]):
            known["status"] = deepcopy(status)

    def report(self, item: dict[str, Any], event: Event, now: datetime) -> None:
        self.events.append((item["metadata"]["name"], event))

    def revision(self, namespace: str, name: str) -> str:
        return self.revisions.get((namespace, name), "")

    def watch(self, changed: Callable[[], None], ended: Callable[[], bool]) -> None:
        self.changed = changed
        while not ended():
            threading.Event().wait(0.05)

    def status(self, name: str = "voice") -> dict[str, Any]:
        return dict(self.items[name]["status"])

    def condition(self, kind: str, name: str = "voice") -> tuple[str, str]:
        (found,) = [one for one in self.status(name)["conditions"] if one["type"] == kind]
        return found["status"], found["reason"]


def _closed(schema: Any) -> Any:
    """A schema without room for what an API server would leave out as unknown."""
    if isinstance(schema, dict):
        closed = {key: _closed(value) for key, value in schema.items()}
        if "properties" in schema:
            closed["additionalProperties"] = False
        return closed
    return [_closed(entry) for entry in schema] if isinstance(schema, list) else schema
