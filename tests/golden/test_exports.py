"""The official files that our exports make: names, inputs, outputs and dynamic axes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from cosyflow.checkpoint.official import save_official
from cosyflow.config.load import load_config
from cosyflow.config.recipe import Recipe
from cosyflow.models.flow.model import build_flow
from cosyflow.models.vocoder.gan import HiFiGan
from cosyflow.release.export import export_model, exported_files
from cosyflow.release.export.flow import ESTIMATOR_FILE
from cosyflow.release.export.language_model import STEP_FILE
from cosyflow.training.language_model import build_language_model

CONF = Path(__file__).resolve().parents[2] / "conf"
RECIPES = {"cosyvoice1": "cosyvoice", "cosyvoice2": "cosyvoice2", "cosyvoice3": "cosyvoice3"}


def tiny(version: str) -> Recipe:
    return load_config(CONF / f"{RECIPES[version]}.tiny.yaml")


def tables(golden_file: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of the table of exports, by tool and model."""
    return {(row["tool"], row.get("model", "")): row for row in json.loads(golden_file.read_text())["exports"]}


@pytest.mark.golden_files("data/checkpoints_and_exports.json")
@pytest.mark.parametrize("version", RECIPES)
def test_torchscript_files(golden_file: Path, version: str, tmp_path: Path) -> None:
    recipe = tiny(version)
    names: list[str] = []
    for part, model in (("llm", build_language_model(recipe.llm)), ("flow", build_flow(recipe.flow))):
        save_official(model, tmp_path / f"{part}.pt")
        names += [file.name for file in exported_files(recipe, part, tmp_path / f"{part}.pt")]
    official = [name for name in names if name.endswith(".zip") and not name.startswith(STEP_FILE)]
    assert official == tables(golden_file)["export_jit", version]["files"]


@pytest.mark.golden_files("data/checkpoints_and_exports.json")
@pytest.mark.parametrize("version", RECIPES)
def test_the_estimator(golden_file: Path, version: str, tmp_path: Path) -> None:
    table = tables(golden_file)["export_onnx", "cosyvoice1/2/3"]
    recipe = tiny(version)
    save_official(build_flow(recipe.flow), tmp_path / "flow.pt")
    result = export_model(recipe, "flow", str(tmp_path / "flow.pt"), str(tmp_path))
    assert table["files"] == [name for name in result.files if name.endswith(".onnx")] == [ESTIMATOR_FILE]
    model = onnx.load(tmp_path / ESTIMATOR_FILE)
    onnx.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import if not opset.domain] == [table["opset"]]
    for found, expected in ((model.graph.input, table["inputs"]), (model.graph.output, table["outputs"])):
        assert [describe(value) for value in found] == expected
        assert {value.type.tensor_type.elem_type for value in found} == {onnx.TensorProto.FLOAT}


def describe(value: onnx.ValueInfoProto) -> dict[str, Any]:
    shape = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
    return {"name": value.name, "shape": shape}


@pytest.mark.golden_files("keytables/cosyvoice[123]_hift.json")
def test_the_vocoder_has_the_keys_of_the_released_one(golden_file: Path, tmp_path: Path) -> None:
    table = json.loads(golden_file.read_text())
    recipe = tiny(table["model"])
    save_official(HiFiGan(recipe.hifigan), tmp_path / "hifigan.pt")
    export_model(recipe, "hifigan", str(tmp_path / "hifigan.pt"), str(tmp_path))
    assert list(torch.load(tmp_path / "hift.pt", weights_only=True)) == list(table["state_dict"])
