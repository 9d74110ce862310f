"""The whole pipeline on this machine for the versions and parts that the demo does not show unless asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cosyflow.standins import espeak
from cosyflow.standins.corpus import SPEAKERS, pack_corpus, serve, speak_corpus
from cosyflow.standins.models import make_stand_ins
from pipelines.demo import demo_arguments, find_subsets
from tests.local.test_pipeline import run_pipeline

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not espeak.is_installed(), reason="the corpus is spoken by the optional espeakng-loader"),
]

SUBSETS = ("train-clean-100", "dev-clean")
EPOCHS = 2


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-in models, a spoken corpus and its archives."""
    directory = tmp_path_factory.mktemp("pipeline")
    make_stand_ins(directory / "pretrained")
    speak_corpus(directory / "corpus", [speaker for speaker in SPEAKERS if speaker.subset in SUBSETS])
    pack_corpus(directory / "corpus", directory / "archives")
    return directory


@pytest.mark.parametrize("version", ["cosyvoice", "cosyvoice3"])
def test_from_archives_to_a_registered_model(version: str, work_dir: Path, tmp_path: Path) -> None:
    recipe = f"{version}.tiny"
    overrides = {"overrides": [f"train_conf.max_epoch={EPOCHS}"]}
    with serve(work_dir / "archives") as url:
        given = demo_arguments(find_subsets(work_dir / "corpus"), url, work_dir / "pretrained", tmp_path, recipe)
        finished = run_pipeline(given | overrides, tmp_path / "run")
    assert finished.status == 0, finished.shown

    (trained,) = finished.manifests["train"]
    assert trained.name == f"{recipe}-llm"
    assert trained.counts["epochs"] == EPOCHS
    assert trained.details["train_loss_last"] < trained.details["train_loss_first"]

    (registered,) = finished.manifests["register"]
    client = MlflowClient(tracking_uri=given["mlflow_uri"], registry_uri=given["mlflow_uri"])
    assert f"{recipe}-llm" in registered.details["versions"]
    for name, number in registered.details["versions"].items():
        assert int(client.get_model_version_by_alias(name, "candidate").version) == number
        assert re.search(rf"^Registered +{name} version {number}$", finished.shown, re.MULTILINE)


def test_flow_and_vocoder_from_archives_to_registered_models(work_dir: Path, tmp_path: Path) -> None:
    """The second run takes over what the first made of the archives, but for the shards, which need an f0 now."""
    registered = {}
    with serve(work_dir / "archives") as url:
        subsets = find_subsets(work_dir / "corpus")
        given = demo_arguments(subsets, url, work_dir / "pretrained", tmp_path, "cosyvoice2.tiny")
        for model, conf in (("flow", "train_conf"), ("hifigan", "train_conf_gan")):
            asked = {"model": model, "overrides": [f"{conf}.max_epoch=1"]}
            finished = run_pipeline(given | asked, tmp_path / f"run-{model}")
            assert finished.status == 0, finished.shown
            (trained,) = finished.manifests["train"]
            assert trained.name == f"cosyvoice2.tiny-{model}"
            assert trained.counts["epochs"] == 1
            (of_model,) = finished.manifests["register"]
            registered[model] = set(of_model.details["versions"])
    assert "cosyvoice2.tiny-flow" in registered["flow"]
    assert "cosyvoice2.tiny-hifigan" in registered["hifigan"]
