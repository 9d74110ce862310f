"""Every component: its names are its stage's, and its source is free of imports that its image may lack."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import components
from components.base import IMAGES, image_reference
from cosyflow.run.stages import STAGES

FOLDER = Path(components.__file__).parent
FOLDERS = sorted(path.name for path in FOLDER.iterdir() if (path / "component.py").exists())


def kind(channel: Any) -> str:
    name = str(channel.type).removesuffix("@0.0.1")
    return f"list of {name}" if getattr(channel, "is_artifact_list", False) else name


def test_all_folders_are_exported() -> None:
    assert sorted(components.__all__) == FOLDERS


def test_every_stage_is_a_component_of_its_name() -> None:
    assert {stage.replace("-", "_") for stage in STAGES} == set(FOLDERS) - {"plan", "report"}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_component_has_its_folders_name_and_says_what_it_does(name: str) -> None:
    spec = getattr(components, name).component_spec
    assert spec.name == name.replace("_", "-")
    assert spec.description
    assert spec.implementation.container.image in map(image_reference, IMAGES)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_component_is_a_few_lines_and_imports_the_library_inside(name: str) -> None:
    module = ast.parse((FOLDER / name / "component.py").read_text())
    imported = {node.module for node in module.body if isinstance(node, ast.ImportFrom)}
    assert imported <= {"kfp", "components.base", "typing"}
    (function,) = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    statements = [node for node in function.body if not isinstance(node, ast.ImportFrom | ast.Expr)]
    assert len(statements) <= 3


@pytest.mark.parametrize("stage", STAGES)
def test_a_component_takes_and_makes_what_its_stage_says(stage: str) -> None:
    """An artifact has one name wherever it goes; `manifest` and `metrics` would be the same name for all of them."""
    component = getattr(components, stage.replace("-", "_"))
    inputs = {
        name
        for name, channel in component.component_spec.inputs.items()
        if kind(channel).rpartition(" ")[2].startswith("system.")
    }
    assert inputs == {STAGES[before].makes for before in STAGES[stage].inputs}
    made, metrics = component.component_spec.outputs
    assert made == STAGES[stage].makes
    assert kind(component.component_spec.outputs[metrics]) == "system.Metrics"
    assert metrics.endswith("_metrics")


def test_no_two_components_make_artifacts_of_one_name() -> None:
    made = [output for name in FOLDERS if name != "plan" for output in getattr(components, name).component_spec.outputs]
    assert sorted(set(made)) == sorted(made)
    assert not {"manifest", "metrics", "output", "Output"} & set(made)
