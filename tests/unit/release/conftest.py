"""Recipes so small that a part is exported in a second, weights for them, and an empty model registry."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cosyflow.checkpoint.official import save_official
from cosyflow.config.load import load_config
from cosyflow.config.recipe import Recipe
from cosyflow.mlflow_server import connect
from cosyflow.models.flow.model import build_flow
from cosyflow.models.vocoder.gan import HiFiGan
from cosyflow.training.language_model import build_language_model

CONF = Path(__file__).resolve().parents[3] / "conf"
QWEN2 = ("num_hidden_layers=2", "hidden_size=32", "vocab_size=64", "intermediate_size=32")
SMALLER = {
    "cosyvoice": [
        *("llm.text_token_size=64", "llm.speech_token_size=50"),
        *("llm.text_encoder.num_blocks=1", "llm.text_encoder.linear_units=32", "llm.llm.num_blocks=2"),
        *("flow.encoder.num_blocks=1", "flow.estimator.num_mid_blocks=1"),
        "hifigan.generator.base_channels=16",
    ],
    "cosyvoice2": [
        *(f"llm.qwen2.{size}" for size in QWEN2),
        "llm.speech_token_size=50",
        *("flow.encoder.layers.num_blocks=1", "flow.estimator.num_mid_blocks=1"),
        "hifigan.generator.base_channels=16",
    ],
    "cosyvoice3": [
        *(f"llm.qwen2.{size}" for size in QWEN2),
        "llm.speech_token_size=50",
        "flow.estimator.depth=1",
        "hifigan.generator.base_channels=16",
    ],
}
BUILDERS: dict[str, Callable[[Recipe], torch.nn.Module]] = {
    "llm": lambda recipe: build_language_model(recipe.llm),
    "flow": lambda recipe: build_flow(recipe.flow),
    "hifigan": lambda recipe: HiFiGan(recipe.hifigan),
}


@pytest.fixture(scope="session")
def recipes() -> dict[str, Recipe]:
    return {version: load_config(CONF / f"{version}.tiny.yaml", settings) for version, settings in SMALLER.items()}


@pytest.fixture(scope="session")
def weights(recipes: dict[str, Recipe], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], str]:
    """The checkpoint that training leaves of a version's part, random: `weights("cosyvoice2", "flow")`."""
    folder = tmp_path_factory.mktemp("weights")

    def path_of(version: str, part: str) -> str:
        path = folder / f"{version}.{part}.pt"
        if not path.exists():
            torch.manual_seed(0)
            save_official(BUILDERS[part](recipes[version]), path)
        return str(path)

    return path_of


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a registry that has nothing, which MLflow takes seconds to make."""
    file = tmp_path_factory.mktemp("registry") / "mlflow.db"
    assert not connect(f"sqlite:///{file}").search_registered_models()
    return file


@pytest.fixture
def registry(empty_registry: Path, tmp_path: Path) -> str:
    """The address of an empty model registry."""
    shutil.copy(empty_registry, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"
