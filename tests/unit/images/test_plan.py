"""What is built upon what, and that a tag says what is inside."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from images.plan import IMAGES, Build, made_by, plan_builds
from images.sources import content_tag

REQUIREMENTS = {name: f"{name}==1\n" for name in ("build", "base", "cuda", "extract", "train", "mlflow")}
PYTHON = "docker.io/library/python:3.11-slim-bookworm"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    files = ["cosyflow/a.py", "conf/a.yaml", "pyproject.toml", "images/install-packages", "images/library/Dockerfile"]
    for name in [*files, *(f"images/{image}/Dockerfile" for image in (*IMAGES, "cuda"))]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


def plan(checkout: Path, *wanted: str, **changed: str) -> list[Build]:
    return plan_builds(checkout, wanted or IMAGES, "registry.example/x", PYTHON, {**REQUIREMENTS, **changed})


def test_each_image_lies_upon_the_packages_of_the_one_before(checkout: Path) -> None:
    order = [build.reference.partition("cosyflow-")[2].partition(":")[0] for build in plan(checkout)]
    assert order == [
        "base-packages", "base", "cuda-packages", "extract-packages", "extract", "train-packages", "train", "mlflow",
    ]  # fmt: skip
    base, _, cuda, extract, *_ = plan(checkout)
    assert base.upon == PYTHON
    assert cuda.upon == base.reference
    assert extract.upon == cuda.reference


def test_packages_are_not_taken_for_an_image(checkout: Path) -> None:
    finished = made_by(plan(checkout, "extract", "mlflow"))
    assert finished.keys() == {"extract", "mlflow"}
    assert finished["extract"].startswith("registry.example/x/cosyflow-extract:")


def test_a_change_of_the_code_leaves_the_packages_alone(checkout: Path) -> None:
    before = plan(checkout)
    (checkout / "cosyflow/a.py").write_text("changed")
    changed = {old.image for old, new in zip(before, plan(checkout), strict=True) if old.reference != new.reference}
    same = [old.reference for old, new in zip(before, plan(checkout), strict=True) if old == new]
    assert changed == {"base", "extract", "train"}
    assert sum("packages" in reference for reference in same) == 4


def test_a_changed_requirement_changes_what_lies_upon_it(checkout: Path) -> None:
    before, after = plan(checkout), plan(checkout, extract="extract==2\n")
    kept = {old.reference for old in before} & {new.reference for new in after}
    assert sorted(reference.partition("cosyflow-")[2].partition(":")[0] for reference in kept) == [
        "base", "base-packages", "cuda-packages", "mlflow",
    ]  # fmt: skip


def test_only_what_an_image_needs_is_built(checkout: Path) -> None:
    assert [build.image for build in plan(checkout, "mlflow")] == ["mlflow"]
    assert [build.image for build in plan(checkout, "extract")] == ["base", "cuda", "extract", "extract"]


def test_tests_and_ignored_files_do_not_change_a_tag(checkout: Path) -> None:
    (checkout / ".gitignore").write_text("__pycache__/\n")
    before = content_tag(checkout, ["cosyflow"])
    (checkout / "cosyflow/test_a.py").write_text("new")
    (checkout / "cosyflow/__pycache__").mkdir()
    (checkout / "cosyflow/__pycache__/a.pyc").write_text("new")
    assert content_tag(checkout, ["cosyflow"]) == before
    (checkout / "cosyflow/b.py").write_text("new")
    assert content_tag(checkout, ["cosyflow"]) != before
