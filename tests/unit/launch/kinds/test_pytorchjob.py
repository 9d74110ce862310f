"""The manifest: byte for byte as it was looked at, and true to the rules for every name and size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.launch.kinds.pytorchjob import PyTorchJob
from cosyflow.launch.pods import to_yaml
from cosyflow.launch.settings import LAUNCHER_FOLDER, LAUNCHER_SECRET, JobSettings, with_task_config
from cosyflow.launch.spec import JobSpec, attempt_name, base_name, label_value

build = PyTorchJob().manifest
GOLDEN = Path(__file__).parent / "golden"
DNS_1035 = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")


def spec(num_nodes: int = 1, gpus_per_node: int = 0, attempt: int = 0, **settings: Any) -> JobSpec:
    return JobSpec(
        base=base_name("cosyvoice2-llm", "s3://mlpipeline/data/v2/train/llm/0123"),
        namespace="kubeflow",
        run="1f6e3c2a-0000-4000-8000-000000000000",
        attempt=attempt,
        module="cosyflow.training",
        arguments=("--config", "s3://mlpipeline/recipe.yaml", "--model_dir", "s3://mlpipeline/model"),
        num_nodes=num_nodes,
        gpus_per_node=gpus_per_node,
        settings=JobSettings(image="registry.example/cosyflow-train@sha256:" + 64 * "0", **settings),
        env=(("COSYFLOW_HEARTBEAT", "s3://mlpipeline/model/heartbeat"),),
    )


SPECS = {
    "one-cpu": spec(s3_endpoint="http://minio-service.kubeflow:9000"),
    "two-nodes-of-eight": spec(
        2,
        8,
        1,
        s3_endpoint="http://minio-service.kubeflow:9000",
        resources={"requests": {"cpu": "32", "memory": "256Gi"}, "limits": {"memory": "512Gi"}},
        node_selector={"accelerator": "h200"},
        tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        affinity={
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname"}}
                ]
            }
        },
        env=[{"name": "NCCL_DEBUG", "value": "WARN"}],
        volumes=[{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
        volume_mounts=[{"name": "models", "mountPath": "/models", "readOnly": True}],
        queue="training",
        shm_size="64Gi",
        deadline_seconds=604_800,
        run_as_user=1000,
    ),
}


@pytest.mark.parametrize("name", SPECS)
def test_golden_manifest(name: str) -> None:
    assert to_yaml(build(SPECS[name])) == (GOLDEN / f"{name}.yaml").read_text()


def replicas(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest["spec"]["pytorchReplicaSpecs"]


@given(st.integers(1, 64), st.integers(0, 8))
def test_every_size_has_one_master_and_asks_for_its_devices(num_nodes: int, gpus: int) -> None:
    manifest = build(spec(num_nodes, gpus))
    counts = {kind: replica["replicas"] for kind, replica in replicas(manifest).items()}
    assert counts["Master"] == 1
    assert sum(counts.values()) == num_nodes
    assert manifest["spec"]["nprocPerNode"] == str(max(1, gpus))
    for replica in replicas(manifest).values():
        (container,) = replica["template"]["spec"]["containers"]
        assert container["name"] == "pytorch"
        assert container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu") == (str(gpus) if gpus else None)


def test_secrets_are_only_referred_to(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(variable, "never-to-be-seen")
    for name in SPECS:
        text = to_yaml(build(SPECS[name]))
        assert "never-to-be-seen" not in text
        assert text.count("mlpipeline-minio-artifact") == 2 * SPECS[name].num_nodes
        assert text.count("cosyflow-logins") == 3 * SPECS[name].num_nodes


def test_a_root_that_is_only_read_has_one_place_for_temporary_files() -> None:
    def mounted(**settings: Any) -> list[str]:
        pod = replicas(build(spec(**settings)))["Master"]["template"]["spec"]
        (container,) = pod["containers"]
        names = [mount["name"] for mount in container["volumeMounts"]]
        assert names == [volume["name"] for volume in pod["volumes"]]
        return names

    mount = {"name": "scratch", "mountPath": "/tmp/"}  # noqa: S108
    assert mounted() == ["shared-memory", "temporary-files"]
    assert mounted(read_only_root=False) == ["shared-memory"]
    assert mounted(volumes=[{"name": "scratch", "emptyDir": {}}], volume_mounts=[mount]) == ["shared-memory", "scratch"]


def test_what_a_task_was_given_reaches_the_pods_and_settings_win() -> None:
    settings = JobSettings(image="x:1", node_selector={"pool": "a"}, env=[{"name": "A", "value": "settings"}])
    task = {
        "node_selector": {"pool": "b"},
        "tolerations": [{"key": "gpu"}],
        "env": [{"name": "A", "value": "task"}, {"name": "B", "value": "task"}],
        "resources": {"limits": {"cpu": "2", "amd.com/gpu": "1"}},
        "volumes": None,
    }
    job = build(JobSpec(**{**vars(spec(1, 4)), "settings": with_task_config(settings, task)}))
    pod = replicas(job)["Master"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["nodeSelector"] == {"pool": "a"}
    assert pod["tolerations"] == [{"key": "gpu"}]
    values = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert (values["A"], values["B"]) == ("settings", "task")
    assert container["resources"]["limits"] == {"cpu": "2", "amd.com/gpu": "4"}


@pytest.mark.parametrize("name", [LAUNCHER_SECRET, "another-name"])
def test_the_launchers_token_does_not_reach_the_pods_while_other_volumes_do(name: str) -> None:
    secret = {"secretName": LAUNCHER_SECRET, "optional": True}
    task = {
        "volumes": [{"name": name, "secret": secret}, {"name": "corpus", "persistentVolumeClaim": {"claimName": "c"}}],
        "volume_mounts": [
            {"name": name, "mountPath": LAUNCHER_FOLDER},
            {"name": name, "mountPath": "/elsewhere"},
            {"name": "corpus", "mountPath": "/corpus"},
        ],
    }
    job = build(JobSpec(**{**vars(spec(2, 4)), "settings": with_task_config(JobSettings(image="x:1"), task)}))
    assert LAUNCHER_SECRET not in str(job)
    for replica in replicas(job).values():
        pod = replica["template"]["spec"]
        (container,) = pod["containers"]
        assert [volume["name"] for volume in pod["volumes"]] == ["shared-memory", "temporary-files", "corpus"]
        assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]]


@given(st.text(max_size=120), st.text(max_size=200), st.integers(0, 99))
def test_names_are_valid_with_all_that_the_operator_adds(title: str, model_dir: str, attempt: int) -> None:
    name = attempt_name(base_name(title, model_dir), attempt)
    assert DNS_1035.fullmatch(name)
    assert len(f"{name}-worker-99999") <= 63


@given(st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=2, unique_by=lambda text: text.rstrip("/")))
def test_a_folder_has_one_name_and_two_folders_have_two(folders: list[str]) -> None:
    one, two = (base_name("llm", folder) for folder in folders)
    assert one != two
    assert one == base_name("llm", folders[0] + "/")


@given(st.text(max_size=100))
def test_label_values_are_valid_and_keep_what_is(text: str) -> None:
    value = label_value(text)
    assert LABEL.fullmatch(value)
    assert len(value) <= 63
    assert label_value(value) == value
