"""The compiled pipeline: the same bytes each time, and what the Kubeflow UI and a server need to know."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosyflow.errors import CosyFlowError
from cosyflow.stages import NUMBERS, position
from pipelines.compiling import PIPELINES, compile_pipelines

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden"
TEST_LOCK = ROOT / "conf" / "images.test-lock.yaml"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = compile_pipelines(tmp_path_factory.mktemp("compiled"), TEST_LOCK)
    return path


@pytest.fixture(scope="module")
def ir(compiled: Path) -> dict[str, Any]:
    return next(yaml.safe_load_all(compiled.read_text()))


def test_equals_the_golden_file(compiled: Path) -> None:
    command = f"python -m pipelines compile --output {GOLDEN.relative_to(ROOT)} --images {TEST_LOCK.relative_to(ROOT)}"
    assert [path.stem for path in GOLDEN.glob("*.yaml")] == list(PIPELINES)
    assert compiled.read_bytes() == (GOLDEN / compiled.name).read_bytes(), f"if the change is meant: {command}"


def test_another_process_writes_the_same_bytes(compiled: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "compile", "--output", str(tmp_path), "--images", str(TEST_LOCK)]
    subprocess.run(command, check=True, cwd=ROOT, env={"PYTHONHASHSEED": "7"}, capture_output=True)
    assert (tmp_path / compiled.name).read_bytes() == compiled.read_bytes()


def test_every_parameter_has_a_type_a_description_and_a_default(ir: dict[str, Any]) -> None:
    for name, parameter in ir["root"]["inputDefinitions"]["parameters"].items():
        assert parameter["parameterType"] in {"STRING", "NUMBER_INTEGER", "NUMBER_DOUBLE", "BOOLEAN", "LIST"}
        assert parameter["description"], name
        assert "defaultValue" in parameter or name == "data_root"


def tasks_of(ir: dict[str, Any]) -> list[dict[str, Any]]:
    graphs = [ir["root"], *ir["components"].values()]
    return [task for graph in graphs for task in graph.get("dag", {}).get("tasks", {}).values()]


def test_tasks_are_shown_under_the_names_of_their_stages(ir: dict[str, Any]) -> None:
    shown = [task["taskInfo"]["name"] for task in tasks_of(ir)]
    assert sorted(shown) == sorted([*NUMBERS, "run", "subsets", "plan", "report", "training"])


def test_every_stage_knows_its_place_and_is_never_cached_by_kfp(ir: dict[str, Any]) -> None:
    executors = ir["deploymentSpec"]["executors"]
    for stage in NUMBERS:
        container = executors[f"exec-{stage}"]["container"]
        assert {"name": "COSYFLOW_STAGE", "value": position(stage)} in container["env"]
    for task in tasks_of(ir):
        if task["taskInfo"]["name"] in NUMBERS:
            assert "enableCache" not in task["cachingOptions"]


def test_a_stage_that_fails_is_started_once_more_however_long_it_ran(ir: dict[str, Any]) -> None:
    for task in tasks_of(ir):
        if task["taskInfo"]["name"] in NUMBERS:
            assert task["retryPolicy"]["maxRetryCount"] == 1
            assert int(task["retryPolicy"]["backoffMaxDuration"].removesuffix("s")) >= 30 * 24 * 3600
        else:
            assert "retryPolicy" not in task


def test_kfps_cache_can_be_let_answer_for_stages_and_nothing_else(ir: dict[str, Any], tmp_path: Path) -> None:
    (path,) = compile_pipelines(tmp_path, TEST_LOCK, kfp_cache=True)
    cached = next(yaml.safe_load_all(path.read_text()))
    for task, without in zip(tasks_of(cached), tasks_of(ir), strict=True):
        if task["taskInfo"]["name"] in NUMBERS:
            assert task.pop("cachingOptions") == {"enableCache": True}
            without = {name: value for name, value in without.items() if name != "cachingOptions"}
        assert task == without


def test_every_image_is_a_digest_of_the_lock(ir: dict[str, Any]) -> None:
    locked = set(yaml.safe_load(TEST_LOCK.read_text())["images"].values())
    used = {executor["container"]["image"] for executor in ir["deploymentSpec"]["executors"].values()}
    assert used == locked


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
    with pytest.raises(CosyFlowError, match=message):
        compile_pipelines(tmp_path / "out", path)
    assert not (tmp_path / "out").exists()


def test_a_release_names_its_images_by_digest(tmp_path: Path) -> None:
    path = tmp_path / "lock.yaml"
    path.write_text("images: {base: r.example/a:1, extract: r.example/b:1, train: r.example/c:1}")
    (compiled,) = compile_pipelines(tmp_path / "out", path)
    assert "image: r.example/b:1\n" in compiled.read_text()
    with pytest.raises(CosyFlowError, match=r"base: r.example/a:1 has no digest"):
        compile_pipelines(tmp_path / "release", path, release=True)
    with pytest.raises(CosyFlowError, match="a release needs an image lock"):
        compile_pipelines(tmp_path / "release", release=True)


def test_every_task_gets_the_credentials_by_reference_and_the_addresses_from_the_map(compiled: Path) -> None:
    _, platform = yaml.safe_load_all(compiled.read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    endpoints = yaml.safe_load((ROOT / "k8s" / "base" / "endpoints.yaml").read_text())
    assert set(executors) == {f"exec-{name}" for name in (*NUMBERS, "plan", "report")}
    for executor in executors.values():
        (secret,) = executor["secretAsEnv"]
        assert secret["secretName"] == "mlpipeline-minio-artifact"
        (addresses,) = executor["configMapAsEnv"]
        assert addresses["configMapName"] == endpoints["metadata"]["name"]
        assert {pair["configMapKey"] for pair in addresses["keyToEnv"]} == set(endpoints["data"])
