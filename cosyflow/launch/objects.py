"""Objects of the cluster as the API server takes and sends them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]


def condition(thing: Object, kind: str, status: str = "True") -> Object | None:
    """The condition of an object's status of this type, where it has this status."""
    conditions: list[Object] = (thing.get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind and entry["status"] == status), None)


def label(thing: Object, name: str) -> str:
    """An object's label; empty where it has none of this name."""
    labels: Mapping[str, str] = thing["metadata"].get("labels") or {}
    return labels.get(name, "")


def given(values: Mapping[str, Any]) -> Object:
    """What is there: without None and empty lists and mappings."""
    return {name: value for name, value in values.items() if value not in (None, [], {})}
