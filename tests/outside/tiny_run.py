"""A small spoken corpus as archives that are served, stand-in models, and the command that makes a model of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cosyflow.standins import espeak
from cosyflow.standins.corpus import SPEAKERS, pack_corpus, speak_corpus
from tests.outside.commands import cosyflow, pipelines

TRAIN, DEV = "train-clean-100", "dev-clean"
SUBSETS = (TRAIN, DEV)
EPOCHS = 2
MODEL = "cosyvoice2.tiny-llm"

SUBSET_STAGES = ("download", "prepare", "speaker-embedding", "speech-token", "parquet")
MODEL_STAGES = ("train", "average", "export", "register")
STAGES = (*SUBSET_STAGES, "merge", *MODEL_STAGES)

MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(not espeak.is_installed(), reason="the corpus is spoken by the optional espeakng-loader"),
]


@dataclass(frozen=True)
class Places:
    """Where things lie: `corpus` has SUBSET/SPEAKER/CHAPTER/*.wav, `archives` what is served."""

    folder: Path

    @property
    def corpus(self) -> Path:
        return self.folder / "corpus"

    @property
    def archives(self) -> Path:
        return self.folder / "archives"

    @property
    def data_root(self) -> Path:
        return self.folder / "data"

    @property
    def mlflow_uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def utterances(self) -> dict[str, int]:
        """The number of recordings by subset."""
        return {subset: len(list((self.corpus / subset).rglob("*.wav"))) for subset in SUBSETS}


def make_places(folder: Path) -> Places:
    places = Places(folder)
    speak_corpus(places.corpus, [speaker for speaker in SPEAKERS if speaker.subset in SUBSETS])
    pack_corpus(places.corpus, places.archives)
    ended = cosyflow("stand-ins", str(folder / "pretrained"))
    assert ended.returncode == 0, ended.stderr
    return places


def run_pipeline(places: Places, url: str, run_name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`python -m pipelines run` with everything that its numbers depend on, in either spelling."""
    return pipelines("run", *run_options(places, url, run_name), *words)


def run_options(places: Places, url: str, run_name: str) -> list[str]:
    """What `python -m pipelines run` is given."""
    given = {
        "--run-dir": places.folder / "runs" / run_name,
        "--data_root": places.data_root,
        "--data-url": url,
        "--recipe": "cosyvoice2.tiny",
        "--pretrained_dir": places.folder / "pretrained",
        "--train-subsets": TRAIN,
        "--dev_subsets": DEV,
        "--test-subsets": "none",
        "--num_processes": 1,
        "--num-utts-per-parquet": 16,
        "--num-workers": 0,
        "--gpus-per-node": 0,
        "--average_num": 2,
        "--mlflow-uri": places.mlflow_uri,
    }
    sizes = ("accum_grad=1", "tokens_per_step=2000")  # before the recipe had more, smaller batches an update
    names = (f"max_epoch={EPOCHS}", "log_interval=1", "seed=1234", *sizes)
    settings = [f"train_conf.{setting}" for setting in names]
    options = [str(word) for pair in given.items() for word in pair]
    return [*options, "--no-pin-memory", "--no-use_amp", "--overrides", *settings]


def manifest_files(places: Places) -> dict[Path, bytes]:
    """Every manifest below the data root."""
    return {path: path.read_bytes() for path in places.data_root.rglob("manifest.json")}


def read_manifests(contents: Mapping[Path, bytes]) -> dict[tuple[str, str], dict[str, Any]]:
    """The manifests by stage and name, of which there must be one each."""
    manifests = [json.loads(content) for content in contents.values()]
    by_name = {(manifest["stage"], manifest["name"]): manifest for manifest in manifests}
    assert len(by_name) == len(manifests)
    return by_name
