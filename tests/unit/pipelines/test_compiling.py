"""The compiled pipeline: the same bytes each time, and what the Kubeflow UI and a server need to know."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosyflow.errors import RefusalError
from cosyflow.run.config import from_parameters
from cosyflow.run.stages import STAGES, position
from pipelines.commands import main
from pipelines.compiling import compile_pipelines
from tests.unit.pipelines.graph import Graph

pytestmark = pytest.mark.medium  # the graph is compiled


ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden"
TEST_LOCK = ROOT / "conf" / "images.test-lock.yaml"
PODS = (*STAGES, "plan", "report")
GRAPHS = ("run, then report", "all stages", "something to do", "each subset", "train one part")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = compile_pipelines(tmp_path_factory.mktemp("compiled"), TEST_LOCK)
    return path


@pytest.fixture(scope="module")
def graph(compiled: Path) -> Graph:
    return Graph.read(compiled)


@pytest.fixture(scope="module")
def pods(compiled: Path) -> dict[str, dict[str, Any]]:
    """What the platform's part of the IR says of each pod, by task."""
    _, platform = yaml.safe_load_all(compiled.read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {name.removeprefix("exec-"): executor for name, executor in executors.items()}


@pytest.mark.medium
def test_equals_the_golden_file(compiled: Path) -> None:
    command = f"python -m pipelines compile --output {GOLDEN.relative_to(ROOT)} --images {TEST_LOCK.relative_to(ROOT)}"
    assert [path.name for path in GOLDEN.glob("*.yaml")] == [compiled.name]
    assert compiled.read_bytes() == (GOLDEN / compiled.name).read_bytes(), f"if the change is meant: {command}"


@pytest.mark.medium
def test_another_process_writes_the_same_bytes(compiled: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "compile", "--output", str(tmp_path), "--images", str(TEST_LOCK)]
    subprocess.run(command, check=True, cwd=ROOT, env={"PYTHONHASHSEED": "7"}, capture_output=True)
    assert (tmp_path / compiled.name).read_bytes() == compiled.read_bytes()


def test_tasks_are_shown_under_the_names_of_their_stages(graph: Graph) -> None:
    assert sorted(task["taskInfo"]["name"] for task in graph.tasks.values()) == sorted([*PODS, *GRAPHS])


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_is_labelled_with_its_stage_and_not_root(pod: str, pods: dict[str, dict[str, Any]]) -> None:
    assert pods[pod]["podMetadata"]["labels"] == {"cosyflow.dev/stage": pod}
    assert pods[pod]["securityContext"] == {"runAsNonRoot": True}


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_knows_its_image_and_its_run(pod: str, graph: Graph, pods: dict[str, dict[str, Any]]) -> None:
    container = graph.container(pod)
    assert {"name": "COSYFLOW_IMAGE", "value": container["image"]} in container["env"]
    assert pods[pod]["fieldPathAsEnv"] == [
        {"name": "COSYFLOW_RUN_ID", "fieldPath": "metadata.labels['pipeline/runid']"}
    ]


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_gets_the_credentials_by_reference_and_the_addresses_from_the_map(
    pod: str, pods: dict[str, dict[str, Any]]
) -> None:
    endpoints = yaml.safe_load((ROOT / "k8s" / "base" / "endpoints.yaml").read_text())
    secrets = {secret["secretName"]: secret["optional"] for secret in pods[pod]["secretAsEnv"]}
    assert secrets == {"mlpipeline-minio-artifact": True, "cosyflow-logins": True}
    (addresses,) = pods[pod]["configMapAsEnv"]
    assert (addresses["configMapName"], addresses["optional"]) == (endpoints["metadata"]["name"], True)
    asked = {pair["configMapKey"] for pair in addresses["keyToEnv"]}
    assert asked - set(endpoints["data"]) <= {"KFP_UI_URL"}  # known where a profile has it
    assert asked >= set(endpoints["data"])


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_asks_for_memory_and_is_held_to_it(pod: str, graph: Graph) -> None:
    """But for the training, whose task may be no more than the one that waits for a job."""
    resources = graph.container(pod).get("resources", {})
    if pod == "train":
        assert resources == {}
    else:
        assert 0 < resources["memoryRequest"] <= resources["memoryLimit"]
        assert resources["cpuRequest"] > 0


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_knows_its_place(stage: str, graph: Graph) -> None:
    assert {"name": "COSYFLOW_STAGE", "value": position(stage)} in graph.container(stage)["env"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_fails_is_started_once_more_however_long_it_ran(stage: str, graph: Graph) -> None:
    policy = graph.tasks[stage]["retryPolicy"]
    assert policy["maxRetryCount"] == 1
    assert int(policy["backoffMaxDuration"].removesuffix("s")) >= 30 * 24 * 3600


@pytest.mark.parametrize("pod", ["plan", "report"])
def test_the_plan_and_the_report_are_tried_once(pod: str, graph: Graph) -> None:
    assert "retryPolicy" not in graph.tasks[pod]


def test_the_servers_cache_may_answer_for_the_stages_alone(graph: Graph) -> None:
    assert [pod for pod in PODS if graph.tasks[pod]["cachingOptions"].get("enableCache")] == list(STAGES)


@pytest.mark.medium
def test_the_servers_cache_can_be_left_out(graph: Graph, tmp_path: Path) -> None:
    assert main(["compile", "--output", str(tmp_path), "--images", str(TEST_LOCK), "--no-kfp-cache"]) == 0
    without = Graph.read(tmp_path / "cosyvoice.yaml")
    assert not [name for name, task in without.tasks.items() if task.get("cachingOptions", {}).get("enableCache")]
    for name, task in without.tasks.items():
        assert {**task, "cachingOptions": graph.tasks[name].get("cachingOptions")} == {
            **graph.tasks[name],
            "cachingOptions": graph.tasks[name].get("cachingOptions"),
        }


@pytest.mark.medium
def test_two_subsets_are_worked_on_at_once_unless_the_run_says_otherwise(graph: Graph, tmp_path: Path) -> None:
    assert graph.subsets_at_once == 2
    file = tmp_path / "run.yaml"
    file.write_text("subsets_at_once: 5\n")
    assert main(["compile", "--output", str(tmp_path), "--run", str(file)]) == 0
    assert Graph.read(tmp_path / "cosyvoice.yaml").subsets_at_once == 5


@pytest.mark.medium
def test_a_run_says_what_its_pods_ask_for(graph: Graph, tmp_path: Path) -> None:
    wanted = {
        "speech-token": {"memory_limit": "32Gi", "accelerator": "nvidia.com/gpu", "accelerator_limit": "1"},
        "train": {"cpu_request": "2", "cpu_limit": "8"},
        "plan": {"memory_request": "1Gi"},
    }
    run = from_parameters({"data_root": "s3://bucket", "resources": wanted})
    (path,) = compile_pipelines(tmp_path, TEST_LOCK, run=run)
    changed = Graph.read(path)
    tokens = changed.container("speech-token")["resources"]
    assert (tokens["resourceMemoryLimit"], tokens["resourceMemoryRequest"]) == ("32Gi", "2Gi")
    assert (tokens["accelerator"]["resourceType"], tokens["accelerator"]["resourceCount"]) == ("nvidia.com/gpu", "1")
    devices = {pod for pod in PODS if {"name": "COSYFLOW_DEVICE", "value": "cuda"} in changed.container(pod)["env"]}
    assert devices == {"speech-token"}
    train = changed.container("train")["resources"]
    assert (train["resourceCpuRequest"], train["resourceCpuLimit"]) == ("2", "8")
    assert changed.container("plan")["resources"]["resourceMemoryRequest"] == "1Gi"
    unchanged = set(PODS) - set(wanted)
    assert all(changed.container(pod) == graph.container(pod) for pod in unchanged)


def test_every_image_is_a_digest_of_the_lock(graph: Graph) -> None:
    locked = set(yaml.safe_load(TEST_LOCK.read_text())["images"].values())
    assert {graph.container(pod)["image"] for pod in PODS} == locked


def test_nothing_is_installed_at_run_time(compiled: Path) -> None:
    assert "pip install" not in compiled.read_text()


@pytest.mark.parametrize(
    ("lock", "message"),
    [
        ("images: [", "cannot read the image lock"),
        ("data: x", "the key images is missing"),
        ("images: {base: r.example/a:1}", "images: extract is missing"),
        (
            "images: {base: r.example/a:latest, extract: x, train: x}",
            "'r.example/a:latest' is not NAME:TAG or NAME@sha",
        ),
        ("images: {base: a:1, extract: a:1, train: a:1, other: a:1}", "other is not one of base"),
    ],
)
def test_a_wrong_image_lock_is_refused(lock: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "lock.yaml"
    path.write_text(lock)
    with pytest.raises(RefusalError, match=message):
        compile_pipelines(tmp_path / "out", path)
    assert not (tmp_path / "out").exists()


@pytest.mark.medium
def test_a_release_names_its_images_by_digest(tmp_path: Path) -> None:
    path = tmp_path / "lock.yaml"
    path.write_text("images: {base: r.example/a:1, extract: r.example/b:1, train: r.example/c:1}")
    (compiled,) = compile_pipelines(tmp_path / "out", path)
    assert "image: r.example/b:1\n" in compiled.read_text()
    with pytest.raises(RefusalError, match=r"base: r.example/a:1 has no digest"):
        compile_pipelines(tmp_path / "release", path, release=True)
    with pytest.raises(RefusalError, match="a release needs an image lock"):
        compile_pipelines(tmp_path / "release", release=True)
