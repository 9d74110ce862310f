"""The custom resource definition of Retraining: `python -m pipelines.retraining.schema > k8s/retraining/crd.yaml`."""

from __future__ import annotations

import json
import sys
from typing import Any

import yaml

from pipelines.retraining.model import GROUP, KIND, PLURAL, VERSION, Spec

COLUMNS = (
    ("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
    ("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason'),
    ("Content", "string", ".status.contentHash"),
    ("Stage", "string", ".status.run.stage"),
    ("Run", "string", ".status.run.id"),
    ("Age", "date", ".metadata.creationTimestamp"),
)
UNSTRUCTURED = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
MOMENT = {"type": "string", "format": "date-time"}
TEXTS = {"type": "array", "items": {"type": "string"}}
CONDITION = {
    "type": "object",
    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
    "properties": {
        "type": {"type": "string"},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "observedGeneration": {"type": "integer"},
        "lastTransitionTime": MOMENT,
        "reason": {"type": "string"},
        "message": {"type": "string"},
    },
}
STATUS = {
    "type": "object",
    "description": "What has become of it.",
    "properties": {
        "observedGeneration": {"type": "integer"},
        "contentHash": {"type": "string"},
        "lastSucceededContentHash": {"type": "string"},
        "commit": {"type": "string"},
        "run": {
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "url": {"type": "string"},
                "contentHash": {"type": "string"},
                "state": {"type": "string"},
                "retry": {"type": "integer"},
                "started": MOMENT,
                "finished": MOMENT,
                "tick": MOMENT,
                "stage": {"type": "string"},
                "reason": {"type": "string"},
                "losses": TEXTS,
            },
        },
        "runs": {"type": "array", "items": UNSTRUCTURED},
        "registered": TEXTS,
        "gate": {"type": "array", "items": UNSTRUCTURED},
        "data": {
            "type": "object",
            "properties": {
                "digest": {"type": "string"},
                "changed": MOMENT,
                "tick": MOMENT,
                "generation": {"type": "integer"},
            },
        },
        "schedule": {"type": "string"},
        "lastTick": MOMENT,
        "nextLook": MOMENT,
        "conditions": {
            "type": "array",
            "items": CONDITION,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    },
}


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition, with a structural schema."""
    names = {"kind": KIND, "plural": PLURAL, "singular": KIND.lower(), "shortNames": ["retrain"]}
    root = {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(Spec.model_json_schema(by_alias=True)),
            "status": STATUS,
        },
    }
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [{"name": name, "type": kind, "jsonPath": path} for name, kind, path in COLUMNS],
        "schema": {"openAPIV3Schema": root},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}", "labels": {"app.kubernetes.io/part-of": "cosyflow"}},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def structural(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema as Kubernetes takes it: no references, no titles, nothing that may be null.

    An absent optional field and a field that is null are the same to Kubernetes.
    """
    known = schema.get("$defs", {})

    def convert(part: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in part:
            found = known[part["$ref"].rpartition("/")[2]]
            return convert({**found, **{key: value for key, value in part.items() if key != "$ref"}})
        if "anyOf" in part:
            (kind,) = [one for one in part["anyOf"] if one.get("type") != "null"]
            rest = {key: value for key, value in part.items() if key not in ("anyOf", "default")}
            return convert({**kind, **rest})
        plain = {
            key: value
            for key, value in part.items()
            if key
            in ("type", "description", "enum", "default", "minimum", "maximum", "minLength", "maxLength", "pattern")
        }
        if "properties" in part:
            plain["properties"] = {name: convert(entry) for name, entry in part["properties"].items()}
        if part.get("required"):
            plain["required"] = part["required"]
        extra = part.get("additionalProperties")
        if isinstance(extra, dict):
            plain["additionalProperties"] = convert(extra)
        elif part.get("type") == "object" and "properties" not in part:
            plain["x-kubernetes-preserve-unknown-fields"] = True
        return plain

    return convert(schema)


if __name__ == "__main__":
    plain = json.loads(json.dumps(definition()))  # equal parts are written out, not referred to
    yaml.safe_dump(plain, sys.stdout, sort_keys=False, width=120, allow_unicode=True)
