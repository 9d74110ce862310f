"""Tiny models with random weights, and recordings of a tone for their voices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cosyflow.checkpoint.official import save_official
from cosyflow.config.load import load_config
from cosyflow.config.recipe import Recipe
from cosyflow.evaluation.listing import Entry
from cosyflow.models.flow.model import build_flow
from cosyflow.models.vocoder.hift import HiFTGenerator
from cosyflow.standins.models import make_stand_ins
from cosyflow.training.language_model import build_language_model
from tests.unit.packages import CHECKOUT

CONFIG = str(CHECKOUT / "conf" / "cosyvoice2.tiny.yaml")
SMALLER = ["flow.matching.n_timesteps=1", "hifigan.generator.base_channels=16", "llm.sampling.top_k=3"]


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return load_config(CONFIG, SMALLER)


@pytest.fixture(scope="session")
def model_dirs(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A complete model directory of random weights by their seed."""
    folders: dict[int, Path] = {}

    def folder_of(seed: int) -> Path:
        if seed not in folders:
            folder = folders[seed] = tmp_path_factory.mktemp(f"model{seed}")
            make_stand_ins(folder)
            torch.manual_seed(seed)
            save_official(build_language_model(recipe.llm), folder / "llm.pt")
            save_official(build_flow(recipe.flow), folder / "flow.pt")
            save_official(HiFTGenerator(recipe.hifigan.generator), folder / "hift.pt")
        return folders[seed]

    return folder_of


def record(path: Path, seconds: float, level: float = 0.2, rate: int = 16000) -> str:
    """A rising tone with overtones and a little noise."""
    time = np.arange(int(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * (120 + 40 * time) * k * time) / k for k in (1, 2, 3))
    noise = np.random.default_rng(0).normal(size=len(time))
    soundfile.write(path, level * (tone + 0.05 * noise), rate)
    return str(path)


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    """Two utterances of one voice, with recordings of their texts."""
    wavs = [record(tmp_path / f"{name}.wav", seconds) for name, seconds in (("a", 1.1), ("b", 0.9))]
    return [
        Entry("a", wavs[1], "The harbour.", "A lamp.", wavs[0], "ann"),
        Entry("b", wavs[0], "A lamp.", "The sky.", wavs[1], "ann"),
    ]
