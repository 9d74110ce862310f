"""Argo CD, Flux and plain CI: their manifests, what they may not remove, and how Argo CD sees a Retraining."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator

from pipelines.commands import build_parser
from pipelines.retraining.model import COMMIT, read
from tests.unit.k8s.test_manifests import K8S, RENDERED, errors, named, render

GITOPS = K8S / "gitops"
SCHEMAS = json.loads(Path(__file__).with_name("gitops.json").read_text(encoding="utf-8"))
RECORDED = Path(__file__).with_name("retrainings")
HEALTH = "resource.customizations.health.cosyflow.dev_Retraining"
Object = dict[str, Any]


def documents(folder: str) -> list[Object]:
    files = sorted((GITOPS / folder).glob("*.yaml"))
    return [one for file in files for one in yaml.safe_load_all(file.read_text(encoding="utf-8")) if one]


def of_kind(folder: str, kind: str) -> dict[str, Object]:
    return {one["metadata"]["name"]: one for one in documents(folder) if one["kind"] == kind}


def rendered(folder: Path) -> list[Object]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, which renders the overlays")
    return render(folder)


@pytest.mark.parametrize("one", [*documents("argocd"), *documents("flux")], ids=lambda one: one["metadata"]["name"])
def test_every_object_is_what_its_api_takes(one: Object) -> None:
    schema = SCHEMAS.get(f"{one['apiVersion']}/{one['kind']}")
    if schema is None:
        assert errors(one) == []
        return
    assert [f"{error.json_path}: {error.message}" for error in Draft4Validator(schema).iter_errors(one)] == []
    broken = {**one, "spec": {**one["spec"], "prnue": True}}
    assert list(Draft4Validator(schema).iter_errors(broken))


def test_what_is_kept_from_git_is_there() -> None:
    paths = [one["spec"]["source"]["path"] for one in of_kind("argocd", "Application").values()]
    paths += [one["spec"]["path"] for one in of_kind("flux", "Kustomization").values()]
    for path in paths:
        assert (K8S.parent / path / "kustomization.yaml").is_file(), path
    (source,) = of_kind("flux", "GitRepository")
    for one in of_kind("flux", "Kustomization").values():
        assert one["spec"]["sourceRef"] == {"kind": "GitRepository", "name": source}


def test_the_declared_runs_are_retrainings() -> None:
    for one in rendered(K8S / "retraining" / "examples"):
        assert read(one, "examples").name


def test_a_project_holds_what_its_applications_have_and_that_of_the_runs_nothing_else() -> None:
    projects = of_kind("argocd", "AppProject")
    for one in of_kind("argocd", "Application").values():
        project = projects[one["spec"]["project"]]["spec"]
        assert one["spec"]["source"]["repoURL"] in project["sourceRepos"]
        assert one["spec"]["destination"] in project["destinations"]
        allowed = {
            (entry["group"], entry["kind"])
            for entry in project["namespaceResourceWhitelist"] + project["clusterResourceWhitelist"]
        }
        for item in rendered(K8S.parent / one["spec"]["source"]["path"]):
            group = item["apiVersion"].rpartition("/")[0]
            assert (group, item["kind"]) in allowed, item["metadata"]["name"]
    runs = projects["cosyflow-retrainings"]["spec"]
    assert runs["namespaceResourceWhitelist"] == [{"group": "cosyflow.dev", "kind": "Retraining"}]
    assert runs["clusterResourceWhitelist"] == []


@pytest.mark.medium
def test_what_has_state_is_never_pruned() -> None:
    """Only the project that can hold nothing but Retrainings prunes; volumes say so themselves, too."""
    for name, one in of_kind("argocd", "Application").items():
        assert one["spec"]["syncPolicy"]["automated"]["prune"] is (name == "cosyflow-retrainings")
        assert "finalizers" not in one["metadata"]
    for name, one in of_kind("flux", "Kustomization").items():
        assert one["spec"]["prune"] is (name == "cosyflow-retrainings")
    claims = [item for path in RENDERED for item in rendered(path.parent) if item["kind"] == "PersistentVolumeClaim"]
    assert claims
    for claim in claims:
        said = claim["metadata"]["annotations"]
        assert said["argocd.argoproj.io/sync-options"] == "Prune=false,Delete=false"
        assert said["kustomize.toolkit.fluxcd.io/prune"] == "disabled"


def test_argo_cd_tells_the_commit_and_flux_lets_it_be_read() -> None:
    one = of_kind("argocd", "Application")["cosyflow-retrainings"]["spec"]["source"]["kustomize"]
    assert one["commonAnnotationsEnvsubst"] is True
    assert one["commonAnnotations"][COMMIT] == "$ARGOCD_APP_REVISION"
    (rule,) = named(documents("flux"), "Role", "cosyflow-retraining")["rules"]
    assert (rule["resourceNames"], rule["verbs"]) == (["cosyflow-retrainings"], ["get"])


@pytest.mark.parametrize(
    ("name", "health", "word"),
    [
        ("new", "Progressing", "not looked"),
        ("changed", "Progressing", "not looked"),
        ("running", "Progressing", "Running"),
        ("accepted", "Healthy", "Running"),
        ("succeeded", "Healthy", "Succeeded"),
        ("failed", "Degraded", "RunFailed"),
        ("wrong", "Degraded", "spec.run.average_num"),
        ("still", "Suspended", "Suspended"),
    ],
)
def test_the_health_of_recorded_retrainings(name: str, health: str, word: str) -> None:
    """Objects as a real API server had them, and the Lua that Argo CD runs, which is version 5.1."""
    from lupa.lua51 import LuaRuntime

    (settings,) = [one for one in documents("argocd") if one["kind"] == "ConfigMap"]
    lua = LuaRuntime(register_eval=False, register_builtins=False)
    said = lua.eval(f"function(obj) {settings['data'][HEALTH]} end")(
        lua.table_from(yaml.safe_load((RECORDED / f"{name}.yaml").read_text(encoding="utf-8")), recursive=True)
    )
    assert said["status"] == health
    assert word in said["message"]


def test_the_workflow_runs_commands_that_there_are_and_may_only_read() -> None:
    (workflow,) = documents("ci")
    assert workflow["permissions"] == {"contents": "read"}
    commands = [
        line.strip()
        for job in workflow["jobs"].values()
        for step in job["steps"]
        for line in step.get("run", "").splitlines()
        if "-m pipelines" in line
    ]
    assert [command.split()[3] for command in commands] == ["diff", "apply"]
    for command in commands:
        words = shlex.split(re.split(r">>|\|\|", command)[0])
        args = build_parser().parse_args(words[3:])
        assert all((K8S.parent / path).is_dir() for path in args.paths)
