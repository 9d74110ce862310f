"""The whole pipeline on this machine for every version and part that the demo does not show unless asked.

All runs work on one data root, so that later ones take over what earlier ones made of the same archives.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from cosyflow.run.stages import STAGES
from cosyflow.standins import espeak
from cosyflow.standins.corpus import SPEAKERS, pack_corpus, serve, speak_corpus
from cosyflow.standins.models import make_stand_ins
from pipelines.demo import demo_settings, find_subsets
from tests.local.test_pipeline import Finished, run_pipeline

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not espeak.is_installed(), reason="the corpus is spoken by the optional espeakng-loader"),
]

SUBSETS = ("train-clean-100", "dev-clean")
EPOCHS = {"llm": 2, "flow": 2, "hifigan": 1}

FLOW_ENCODER = {"flow.encoder.fp32.zip", "flow.encoder.fp16.zip"}
ESTIMATOR = {"flow.decoder.estimator.fp32.onnx"}
VOCODER = {"hift.pt"}
LLM_STEP = {"llm.forward.fp32.zip", "llm.forward.fp32.onnx"}
LLM_OF_V1 = {f"llm.{part}.{precision}.zip" for part in ("text_encoder", "llm") for precision in ("fp32", "fp16")}
EXPORTED = {
    "cosyvoice": {"llm": {"llm.forward.fp32.zip"} | LLM_OF_V1, "flow": FLOW_ENCODER | ESTIMATOR, "hifigan": VOCODER},
    "cosyvoice2": {"flow": FLOW_ENCODER | ESTIMATOR, "hifigan": VOCODER},  # its llm is the demo's: test_pipeline.py
    "cosyvoice3": {"llm": LLM_STEP, "flow": ESTIMATOR, "hifigan": VOCODER},
}
"""Files that the export makes of each part that is trained here."""

MADE_ANEW = {"llm": set(), "flow": set(), "hifigan": {"parquet", "merge"}}
"""Stages before the training that a later run of the same version repeats: the vocoder's shards hold f0."""


@dataclass(frozen=True)
class Corpus:
    """Archives that are served, and everything that is made of them."""

    url: str
    directory: Path

    def run(self, recipe: str, model: str) -> Finished:
        subsets = find_subsets(self.directory / "corpus")
        given = demo_settings(subsets, self.url, self.directory / "pretrained", self.directory, recipe)
        section = "train_conf_gan" if model == "hifigan" else "train_conf"
        epochs = EPOCHS[model]
        asked: dict[str, Any] = {"model": model, "overrides": [f"{section}.max_epoch={epochs}"], "average_num": epochs}
        return run_pipeline(given | asked, self.directory / "runs" / f"{recipe}-{model}")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """Stand-in models, a spoken corpus and its archives."""
    directory = tmp_path_factory.mktemp("pipeline")
    make_stand_ins(directory / "pretrained")
    speak_corpus(directory / "corpus", [speaker for speaker in SPEAKERS if speaker.subset in SUBSETS])
    pack_corpus(directory / "corpus", directory / "archives")
    with serve(directory / "archives") as url:
        yield Corpus(url, directory)


@pytest.mark.parametrize(
    "version", [*(pytest.param(each, marks=pytest.mark.long) for each in ("cosyvoice", "cosyvoice2")), "cosyvoice3"]
)
def test_from_archives_to_registered_models(version: str, corpus: Corpus) -> None:
    recipe = f"{version}.tiny"
    for number, (model, files) in enumerate(EXPORTED[version].items()):
        finished = corpus.run(recipe, model)
        assert finished.status == 0, finished.shown
        if number:
            assert data_stages_that_worked(finished) == MADE_ANEW[model]
        (trained,) = finished.manifests("train")
        assert (trained.name, trained.counts["epochs"]) == (f"{recipe}-{model}", EPOCHS[model])
        first, last = trained.details["train_loss_first"], trained.details["train_loss_last"]
        assert math.isfinite(last)
        if model != "hifigan":  # whose loss depends on discriminators that learn, too
            assert last < first
        (exported,) = finished.manifests("export")
        assert exported.files.keys() == files
        check_registered(finished, f"{recipe}-{model}", count=1 + len(files))


def data_stages_that_worked(finished: Finished) -> set[str]:
    """Stages before the training that did not hand on what an earlier run had made."""
    before = list(STAGES)[: list(STAGES).index("train")]
    return {stage for (stage, _), state in finished.states().items() if stage in before and state == "made"}


def check_registered(finished: Finished, name: str, count: int) -> None:
    """The averaged model and its exports are `count` registered models, each with its newest version as candidate."""
    (registered,) = finished.manifests("register")
    versions = registered.details["versions"]
    assert name in versions
    assert len(versions) == count
    client = MlflowClient(tracking_uri=finished.settings["mlflow_uri"])
    for registered_name, version in versions.items():
        assert int(client.get_model_version_by_alias(registered_name, "candidate").version) == version
        assert re.search(rf"^Registered +{registered_name} version {version}$", finished.shown, re.MULTILINE)
