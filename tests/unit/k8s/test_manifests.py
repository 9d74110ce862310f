"""Every overlay is rendered by kubectl and held against the API's own schemas, and against what our pods promise."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator

from cosyflow.launch.kinds.pytorchjob import PyTorchJob
from cosyflow.launch.settings import LAUNCHER_FOLDER, LAUNCHER_SECRET, JobSettings, read_settings
from cosyflow.launch.spec import JobSpec
from pipelines.compiling import compile_pipelines
from pipelines.retraining.election import LEASE

K8S = Path(__file__).resolve().parents[3] / "k8s"
RENDERED = [*sorted(K8S.glob("overlays/*/kustomization.yaml")), K8S / "retraining/kustomization.yaml"]
SCHEMAS = json.loads(Path(__file__).with_name("schemas.json").read_text(encoding="utf-8"))
KNOWN_SECRETS = {
    "cosyflow-logins": {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"},
    "mlflow-database": {"uri"},
    "mlpipeline-minio-artifact": {"accesskey", "secretkey"},
}
Object = dict[str, Any]


@cache
def render(directory: Path) -> list[Object]:
    done = subprocess.run(["kubectl", "kustomize", str(directory)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture(
    params=[path.parent for path in RENDERED], ids=[path.parent.relative_to(K8S).as_posix() for path in RENDERED]
)
def objects(request: pytest.FixtureRequest) -> list[Object]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, which renders the overlays")
    return render(request.param)


def overlay(name: str) -> list[Object]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, which renders the overlays")
    return render(K8S / "overlays" / name)


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def pods(objects: list[Object]) -> Iterator[Object]:
    """The pod templates of all workloads."""
    for item in objects:
        if item["kind"] == "CronJob":
            yield item["spec"]["jobTemplate"]["spec"]["template"]
        elif item["kind"] in ("Deployment", "Job"):
            yield item["spec"]["template"]


def errors(item: Object) -> list[str]:
    definition = SCHEMAS["kinds"].get("/".join((item["apiVersion"], item["kind"])))
    if definition is None:
        return [f"{item['apiVersion']} {item['kind']}: add it to refresh_schemas.py"]
    schema = {"$ref": f"#/definitions/{definition}", "definitions": SCHEMAS["definitions"]}
    return [f"{error.json_path}: {error.message}" for error in Draft4Validator(schema).iter_errors(item)]


def restricted_violations(spec: Object) -> list[str]:
    """What the Pod Security Standard `restricted` has against a pod."""
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    allowed = ("configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret")
    found += [volume["name"] for volume in spec.get("volumes", []) if not any(kind in volume for kind in allowed)]
    whole = spec.get("securityContext", {})
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = {**whole, **container.get("securityContext", {})}
        wanted = {
            "runAsNonRoot": context.get("runAsNonRoot") is True and context.get("runAsUser") != 0,
            "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
            "capabilities": "ALL" in context.get("capabilities", {}).get("drop", []),
            "seccompProfile": context.get("seccompProfile", {}).get("type") == "RuntimeDefault",
        }
        found += [f"{container['name']}: {key}" for key, good in wanted.items() if not good]
    return found


def test_every_object_is_what_the_api_takes(objects: list[Object]) -> None:
    assert objects
    assert {item["metadata"]["name"]: errors(item) for item in objects if errors(item)} == {}


def test_the_schemas_refuse_what_the_api_refuses() -> None:
    deployment = named(overlay("kind"), "Deployment", "mlflow")
    broken = json.loads(json.dumps(deployment))
    broken["spec"]["template"]["spec"]["containers"][0]["imagePulPolicy"] = "Never"
    del broken["spec"]["selector"]
    assert errors(deployment) == []
    assert any("imagePulPolicy" in error for error in errors(broken))
    assert any("'selector' is a required property" in error for error in errors(broken))


def test_our_pods_are_restricted_and_have_limits(objects: list[Object]) -> None:
    for pod in pods(objects):
        assert restricted_violations(pod["spec"]) == []
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert "memory" in container["resources"]["limits"]


def test_images_have_a_tag_of_their_own(objects: list[Object]) -> None:
    images = [container["image"] for pod in pods(objects) for container in pod["spec"]["containers"]]
    assert all(re.fullmatch(r"[^/]+/[^:]+(:(?!latest$)[^:]+|@sha256:[0-9a-f]{64})", image) for image in images), images


def test_secrets_are_only_referred_to(objects: list[Object]) -> None:
    for secret in (item for item in objects if item["kind"] == "Secret"):
        assert secret["type"] == "kubernetes.io/service-account-token"  # which the cluster fills
        assert not {"data", "stringData"} & secret.keys()
    for pod in pods(objects):
        for variable in pod["spec"]["containers"][0].get("env", []):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if reference:
                assert reference["key"] in KNOWN_SECRETS[reference["name"]]
            else:
                assert not re.search("KEY|SECRET|TOKEN|PASSWORD", variable["name"])


def test_what_is_referred_to_is_there(objects: list[Object]) -> None:
    maps = {item["metadata"]["name"]: item["data"] for item in objects if item["kind"] == "ConfigMap"}
    claims = {item["metadata"]["name"] for item in objects if item["kind"] == "PersistentVolumeClaim"}
    for pod in pods(objects):
        for volume in pod["spec"].get("volumes", []):
            assert volume.get("configMap", {"name": next(iter(maps))})["name"] in maps
            assert "persistentVolumeClaim" not in volume or volume["persistentVolumeClaim"]["claimName"] in claims
        for variable in pod["spec"]["containers"][0].get("env", []):
            if reference := variable.get("valueFrom", {}).get("configMapKeyRef"):
                assert reference["key"] in maps[reference["name"]]


def test_services_find_their_pods(objects: list[Object]) -> None:
    labels = [pod["metadata"]["labels"].items() for pod in pods(objects)]
    for item in objects:
        if item["kind"] == "Service":
            assert any(item["spec"]["selector"].items() <= given for given in labels)


def test_everything_is_in_one_namespace_and_rights_are_given_there(objects: list[Object]) -> None:
    placed = [item for item in objects if item["kind"] != "CustomResourceDefinition"]
    spaces = {item["metadata"].get("namespace", item["metadata"]["name"]) for item in placed}
    assert len(spaces) == 1
    for item in objects:
        if item["kind"] == "RoleBinding":
            assert [subject["namespace"] for subject in item["subjects"]] == list(spaces)
            assert named(objects, "Role", item["roleRef"]["name"])
        assert item["kind"] not in ("ClusterRole", "ClusterRoleBinding")


@pytest.mark.parametrize("name", ["standalone", "multi-user", "gpu"])
def test_deleting_an_overlay_leaves_what_is_kubeflows(name: str) -> None:
    owned = {(item["kind"], item["metadata"]["name"]) for item in overlay(name)}
    assert not {kind for kind, _ in owned} & {"Namespace"}
    assert ("ServiceAccount", "pipeline-runner") not in owned


@pytest.mark.parametrize("name", ["testcluster", "kind"])
def test_the_training_namespace_enforces_baseline_and_warns_of_less_than_restricted(name: str) -> None:
    labels = named(overlay(name), "Namespace", "kubeflow")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"
    assert labels["pod-security.kubernetes.io/warn"] == "restricted"


def test_the_network_policy_is_about_the_pods_that_the_launcher_makes() -> None:
    spec = JobSpec(
        base="train", namespace="kubeflow", run="run", attempt=0, module="cosyflow.training", arguments=(), num_nodes=2,
        gpus_per_node=1, settings=JobSettings(image="registry.example/cosyflow-train:1"), asks_cluster=True,
    )  # fmt: skip
    policy = named(overlay("standalone"), "NetworkPolicy", "cosyflow-training")["spec"]
    for replica in PyTorchJob().manifest(spec)["spec"]["pytorchReplicaSpecs"].values():
        template = replica["template"]
        assert policy["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert restricted_violations(template["spec"]) == []


def test_the_gpu_overlay_has_valid_settings_of_a_job() -> None:
    settings = read_settings(str(K8S / "overlays/gpu/job.yaml"))
    account = named(overlay("gpu"), "ServiceAccount", settings.service_account)
    assert account["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", ["standalone", "multi-user", "gpu", "kind", "testcluster"])
def test_the_launchers_account_alone_may_make_jobs_and_its_token_is_the_secret_that_the_task_mounts(name: str) -> None:
    objects = overlay(name)
    secret = named(objects, "Secret", LAUNCHER_SECRET)
    account = secret["metadata"]["annotations"]["kubernetes.io/service-account.name"]
    assert named(objects, "ServiceAccount", account)["automountServiceAccountToken"] is False
    makers = [
        item["metadata"]["name"]
        for item in objects
        if item["kind"] == "Role" and any({"create", "*"} & set(rule["verbs"]) for rule in item["rules"])
    ]
    bindings = [item for item in objects if item["kind"] == "RoleBinding" and item["roleRef"]["name"] in makers]
    assert [subject["name"] for binding in bindings for subject in binding["subjects"]] == [account]


def test_the_trainings_account_may_look_for_its_run_and_nothing_else() -> None:
    objects = overlay("standalone")
    (binding,) = [
        item
        for item in objects
        if item["kind"] == "RoleBinding" and "cosyflow-training" in [subject["name"] for subject in item["subjects"]]
    ]
    rules = named(objects, "Role", binding["roleRef"]["name"])["rules"]
    assert {resource for rule in rules for resource in rule["resources"]} == {"workflows", "pods"}
    assert all(rule["verbs"] == ["get"] for rule in rules)


@pytest.mark.medium
def test_the_task_that_trains_alone_mounts_the_launchers_token(tmp_path: Path) -> None:
    (compiled,) = compile_pipelines(tmp_path)
    _, platform = yaml.safe_load_all(compiled.read_text(encoding="utf-8"))
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    mounted = {
        name: volume
        for name, executor in executors.items()
        for volume in executor.get("secretAsVolume", [])
        if volume["secretName"] == LAUNCHER_SECRET
    }
    (volume,) = mounted.values()
    assert set(mounted) == {"exec-train"}
    assert (volume["secretName"], volume["mountPath"], volume["optional"]) == (LAUNCHER_SECRET, LAUNCHER_FOLDER, True)


def test_what_takes_the_place_of_kubeflows_rules_gives_no_right_to_make_jobs_or_to_read_the_launchers_token() -> None:
    path = K8S / "components/kubeflow-pipelines/pipeline-runner-rules.yaml"
    rules = yaml.safe_load(path.read_text(encoding="utf-8"))["rules"]
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "x"}, "rules": rules}
    assert errors(role) == []
    for rule in rules:
        assert not {"*", "kubeflow.org", "batch", "apps"} & set(rule["apiGroups"])
        assert rule["verbs"] == ["get"] or rule["resources"] in (["workflowtaskresults"], ["pods"])
        assert rule["resources"] != ["pods"] or rule["verbs"] == ["get", "patch"]
        assert rule["resources"] != ["secrets"] or LAUNCHER_SECRET not in rule["resourceNames"]


def test_the_operators_init_container_is_restricted() -> None:
    text = named(overlay("testcluster"), "ConfigMap", "training-operator-config")["data"]["initContainer.yaml"]
    for name, value in {"InitContainerImage": "localhost/a:1", "MaxTries": "100", "MasterAddr": "m-0"}.items():
        text = text.replace("{{." + name + "}}", value)
    containers = yaml.safe_load(text)
    assert "{{" not in text
    assert restricted_violations({"containers": containers}) == []


def test_the_ports_of_a_kind_cluster_are_those_of_its_services() -> None:
    cluster = yaml.safe_load((K8S / "overlays/kind/cluster.yaml").read_text(encoding="utf-8"))
    mapped = {port["containerPort"] for port in cluster["nodes"][0]["extraPortMappings"]}
    services = [item["spec"]["ports"][0] for item in overlay("kind") if item["kind"] == "Service"]
    assert mapped == {port["nodePort"] for port in services}


def test_the_controller_of_retrainings_may_do_what_it_calls_and_nothing_else() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, which renders the overlays")
    objects = render(K8S / "retraining")
    (deployment,) = [item for item in objects if item["kind"] == "Deployment"]
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    assert not [item for item in objects if item["kind"].startswith("Cluster")]
    (binding,) = [item for item in objects if item["kind"] == "RoleBinding"]
    assert [subject["name"] for subject in binding["subjects"]] == [account]
    rules = named(objects, "Role", binding["roleRef"]["name"])["rules"]
    may = {(verb, resource) for rule in rules for verb in rule["verbs"] for resource in rule["resources"]}
    assert may == {
        ("get", "retrainings"), ("list", "retrainings"), ("watch", "retrainings"), ("patch", "retrainings/status"),
        ("create", "events"), ("create", "leases"), ("get", "leases"), ("update", "leases"),
    }  # fmt: skip
    (update,) = [rule for rule in rules if "update" in rule["verbs"]]
    assert update["resourceNames"] == [LEASE]


def test_where_the_cluster_chooses_the_user_no_pod_names_one(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, which renders the overlays")
    shutil.copytree(K8S, tmp_path / "k8s")
    chosen = tmp_path / "k8s/overlays/chosen"
    chosen.mkdir()
    components = "components: [../../components/any-user]"
    head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../kind]\n"
    (chosen / "kustomization.yaml").write_text(f"{head}{components}\n")
    for pod in pods(render(chosen)):
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & context.keys()
