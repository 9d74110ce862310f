"""The models of the full-size recipes have the keys and shapes of the released ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cosyflow.config.load import load_config
from cosyflow.config.recipe import Recipe
from cosyflow.models.flow.model import build_flow
from cosyflow.models.vocoder.gan import HiFiGan
from cosyflow.models.vocoder.hift import HiFTGenerator
from cosyflow.training.language_model import build_language_model

CONF = Path(__file__).resolve().parents[2] / "conf"
RECIPES = {"cosyvoice1": "cosyvoice", "cosyvoice2": "cosyvoice2", "cosyvoice3": "cosyvoice3"}


def build(recipe: Recipe, part: str) -> torch.nn.Module:
    with torch.device("meta"):
        match part:
            case "llm":
                return build_language_model(recipe.llm)
            case "flow":
                return build_flow(recipe.flow)
            case "hift":
                return HiFTGenerator(recipe.hifigan.generator)
        return HiFiGan(recipe.hifigan)


@pytest.mark.golden_files("keytables/*.json")
def test_keys_of_a_recipe(golden_file: Path) -> None:
    table: dict[str, Any] = json.loads(golden_file.read_text())
    model = build(load_config(CONF / f"{RECIPES[table['model']]}.yaml"), table["part"])
    found = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert found == {name: entry["shape"] for name, entry in table["state_dict"].items()}
    assert sum(parameter.numel() for parameter in model.parameters()) == table["num_unique_parameters"]


@pytest.mark.parametrize("path", sorted(CONF.glob("cosyvoice*.tiny.yaml")), ids=lambda path: path.stem)
def test_a_tiny_twin_has_the_same_kinds_of_layers(path: Path) -> None:
    """Numbers of layers aside: the keys of a tiny model are keys of the full one."""
    tiny, full = load_config(path), load_config(path.with_name(path.name.replace(".tiny", "")))
    for part in ("llm", "flow", "hifigan"):
        assert build(tiny, part).state_dict().keys() <= build(full, part).state_dict().keys()
