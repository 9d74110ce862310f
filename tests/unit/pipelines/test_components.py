"""Every component: its folder is complete, its metadata true, its source free of imports that its image may lack."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

import components
from components.base import image_reference
from cosyflow.stages import NUMBERS

FOLDER = Path(components.__file__).parent
FOLDERS = sorted(path.name for path in FOLDER.iterdir() if (path / "component.py").exists())


def kind(channel: Any) -> str:
    name = str(channel.type).removesuffix("@0.0.1")
    return f"list of {name}" if getattr(channel, "is_artifact_list", False) else name


def test_all_folders_are_exported() -> None:
    assert sorted(components.__all__) == FOLDERS


def test_every_stage_is_a_component_of_its_name() -> None:
    assert {stage.replace("-", "_") for stage in NUMBERS} == set(FOLDERS) - {"plan", "report"}


@pytest.mark.parametrize("name", FOLDERS)
def test_metadata_is_true(name: str) -> None:
    metadata = yaml.safe_load((FOLDER / name / "metadata.yaml").read_text())
    spec = getattr(components, name).component_spec
    assert metadata["name"] == spec.name == name.replace("_", "-")
    assert metadata.get("stage") == NUMBERS.get(metadata["name"])
    assert metadata["description"] == spec.description
    assert image_reference(metadata["image"]) == spec.implementation.container.image
    assert metadata["inputs"] == {key: kind(value) for key, value in spec.inputs.items()}
    assert metadata["outputs"] == {key: kind(value) for key, value in spec.outputs.items()}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_component_is_a_few_lines_and_imports_the_library_inside(name: str) -> None:
    module = ast.parse((FOLDER / name / "component.py").read_text())
    imported = {node.module for node in module.body if isinstance(node, ast.ImportFrom)}
    assert imported <= {"kfp", "components.base"}
    (function,) = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    statements = [node for node in function.body if not isinstance(node, ast.ImportFrom | ast.Expr)]
    assert len(statements) <= 3


def test_every_component_has_a_test_beside_it() -> None:
    assert [name for name in FOLDERS if not (FOLDER / name / "test_component.py").exists()] == []
