"""Writes schemas.json: of the Kubernetes API that a running cluster has, what the manifests of k8s/ use.

KUBECONFIG=... python tests/unit/k8s/refresh_schemas.py

With files of custom resource definitions, as Argo CD and Flux publish them, it writes gitops.json, of their `spec`:

python tests/unit/k8s/refresh_schemas.py application-crd.yaml appproject-crd.yaml ...
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

KINDS = (
    "apiextensions.k8s.io/v1/CustomResourceDefinition",
    "apps/v1/Deployment",
    "batch/v1/CronJob",
    "batch/v1/Job",
    "networking.k8s.io/v1/NetworkPolicy",
    "rbac.authorization.k8s.io/v1/Role",
    "rbac.authorization.k8s.io/v1/RoleBinding",
    "v1/ConfigMap",
    "v1/Namespace",
    "v1/PersistentVolumeClaim",
    "v1/Secret",
    "v1/Service",
    "v1/ServiceAccount",
)
GITOPS_KINDS = (
    "argoproj.io/v1alpha1/AppProject",
    "argoproj.io/v1alpha1/Application",
    "kustomize.toolkit.fluxcd.io/v1/Kustomization",
    "source.toolkit.fluxcd.io/v1/GitRepository",
)
KEPT = ("$ref", "additionalProperties", "enum", "items", "properties", "required", "type")
REFERENCE = "#/definitions/"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
TEXT_OR_NUMBER = {"type": ["string", "number"]}


def kinds(definitions: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """`group/version/Kind` (`version/Kind` of the core group) and the definition's name."""
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            yield "/".join(filter(None, (kind["group"], kind["version"], kind["kind"]))), name


def strict(schema: Any) -> Any:
    """A JSON schema that refuses unknown keys, as the server does with strict validation; without descriptions."""
    if schema.get("format") == "int-or-string":
        return TEXT_OR_NUMBER
    kept = {key: value for key, value in schema.items() if key in KEPT}
    if "properties" in kept:
        kept["properties"] = {name: strict(value) for name, value in kept["properties"].items()}
        kept["additionalProperties"] = False
    elif "additionalProperties" in kept:
        kept["additionalProperties"] = strict(kept["additionalProperties"])
    if "items" in kept:
        kept["items"] = strict(kept["items"])
    return kept


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].removeprefix(REFERENCE)
        for value in schema.values():
            yield from references(value)


def select(definitions: dict[str, Any]) -> dict[str, Any]:
    """The definitions of KINDS and of all that they refer to."""
    names = {kind: name for kind, name in kinds(definitions) if kind in KINDS}
    wanted, waiting = {}, list(names.values())
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted[name] = TEXT_OR_NUMBER if name == QUANTITY else strict(definitions[name])
            waiting += references(wanted[name])
    return {"kinds": dict(sorted(names.items())), "definitions": dict(sorted(wanted.items()))}


def of_definition(crd: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """`group/version/Kind` and the schema of each version that a custom resource definition serves."""
    spec = crd["spec"]
    for version in spec["versions"]:
        whole = version["schema"]["openAPIV3Schema"]
        kept = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
        schema = {"type": "object", "required": ["spec"], "properties": {**kept, "spec": whole["properties"]["spec"]}}
        yield f"{spec['group']}/{version['name']}/{spec['names']['kind']}", strict(schema)


def write_definitions(files: list[str]) -> None:
    found: dict[str, Any] = {}
    for file in files:
        found |= of_definition(yaml.safe_load(Path(file).read_text(encoding="utf-8")))
    wanted = {kind: found[kind] for kind in GITOPS_KINDS}
    path = Path(__file__).with_name("gitops.json")
    path.write_text(json.dumps(wanted, separators=(",", ":"), sort_keys=True) + "\n", encoding="utf-8")
    print(f"{path}: {', '.join(wanted)}")


def main() -> None:
    if files := sys.argv[1:]:
        write_definitions(files)
        return
    answer = subprocess.run(["kubectl", "get", "--raw", "/openapi/v2"], capture_output=True, check=True).stdout
    document = json.loads(answer)
    schemas = {"version": document["info"]["version"], **select(document["definitions"])}
    path = Path(__file__).with_name("schemas.json")
    path.write_text(json.dumps(schemas, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{path}: {document['info']['version']}, {len(schemas['definitions'])} definitions")


if __name__ == "__main__":
    main()
