"""A run of two stages on a corpus of tones, without models: what commands and the local runner are tried on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from cosyflow.run.execute import RUN_VARIABLE

SUBSETS = ("train-a", "dev")
UTTERANCES = 2
SAMPLE_RATE = 24_000


@pytest.fixture(autouse=True)
def outside_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (RUN_VARIABLE, "MLFLOW_TRACKING_URI", "KFP_UI_URL", "KFP_HOST", "KFP_NAMESPACE", "KFP_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def make_corpus(folder: Path) -> Path:
    """A LibriTTS tree."""
    tone = np.sin(np.arange(SAMPLE_RATE) / 20).astype(np.float32)
    for subset in SUBSETS:
        chapter = folder / subset / "84" / "121"
        chapter.mkdir(parents=True)
        for number in range(UTTERANCES):
            soundfile.write(chapter / f"84_121_{subset}_{number}.wav", tone / (number + 1), SAMPLE_RATE)
            (chapter / f"84_121_{subset}_{number}.normalized.txt").write_text("a tone\n")
    return folder


def data_only(corpus: Path, data_root: Path) -> dict[str, Any]:
    """The settings of a run that ends after the Kaldi files."""
    return {
        "recipe": "cosyvoice2.tiny",
        "data_root": str(data_root),
        "data_url": str(corpus),
        "train_subsets": [SUBSETS[0]],
        "dev_subsets": [SUBSETS[1]],
        "test_subsets": ["none"],
        "stop_stage": 0,
    }


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "corpus")


@pytest.fixture
def settings(corpus: Path, tmp_path: Path) -> dict[str, Any]:
    return data_only(corpus, tmp_path / "data")


@pytest.fixture
def run_file(settings: dict[str, Any], tmp_path: Path) -> Path:
    """The same run as a file."""
    from cosyflow.run.config import from_parameters

    path = tmp_path / "run.yaml"
    path.write_text(from_parameters(settings).to_yaml(), encoding="utf-8")
    return path
