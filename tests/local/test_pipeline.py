"""The whole pipeline on this machine: a spoken corpus, archives by URL, stand-in models, training, registry."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cosyflow.stage import Manifest
from cosyflow.stages import NUMBERS
from cosyflow.standins import espeak
from cosyflow.standins.corpus import SPEAKERS, pack_corpus, serve, speak_corpus
from cosyflow.standins.models import make_stand_ins
from pipelines.demo import demo_arguments, find_subsets
from pipelines.running import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not espeak.is_installed(), reason="the corpus is spoken by the optional espeakng-loader"),
]

SUBSETS = ("train-clean-100", "dev-clean", "test-clean")
EPOCHS = 2


@dataclass(frozen=True)
class Finished:
    """A run that ended: the arguments to repeat it, what the terminal showed, and the manifests by stage."""

    arguments: dict[str, Any]
    status: int
    shown: str
    manifests: dict[str, list[Manifest]]


def run_pipeline(arguments: dict[str, Any], run_dir: Path) -> Finished:
    terminal = io.StringIO()
    status = run(arguments, run_dir, terminal)
    manifests: dict[str, list[Manifest]] = {stage: [] for stage in NUMBERS}
    for path in run_dir.rglob("manifest"):
        manifest = Manifest.read(str(path))
        manifests[manifest.stage].append(manifest)
    return Finished(arguments, status, terminal.getvalue(), manifests)


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole pipeline")  # with a space, as some home folders have


@pytest.fixture(scope="module")
def arguments(work_dir: Path) -> Iterator[dict[str, Any]]:
    make_stand_ins(work_dir / "pretrained")
    speak_corpus(work_dir / "corpus", [speaker for speaker in SPEAKERS if speaker.subset in SUBSETS])
    pack_corpus(work_dir / "corpus", work_dir / "archives")
    with serve(work_dir / "archives") as url:
        tree = find_subsets(work_dir / "corpus")
        overrides = {"overrides": [f"train_conf.max_epoch={EPOCHS}"]}
        yield demo_arguments(tree, url, work_dir / "pretrained", work_dir) | overrides


@pytest.fixture(scope="module")
def finished(arguments: dict[str, Any], work_dir: Path) -> Finished:
    return run_pipeline(arguments, work_dir / "first run")


def test_every_stage_works_and_says_so(finished: Finished) -> None:
    assert finished.status == 0, finished.shown
    for place, stage in enumerate(NUMBERS, start=1):
        assert re.search(rf"^\[stage {place}/10 {stage}", finished.shown, re.MULTILINE), stage
        assert re.search(rf"^{stage} +\d\d:\d\d ", finished.shown, re.MULTILINE), stage
    assert "KFP Executor" not in finished.shown


def test_no_utterance_is_lost_on_the_way(finished: Finished, work_dir: Path) -> None:
    spoken = {subset: len(list((work_dir / "corpus" / subset).rglob("*.wav"))) for subset in SUBSETS}
    for stage in ("prepare", "speaker-embedding", "speech-token", "parquet"):
        assert {manifest.name: manifest.counts["outputs"] for manifest in finished.manifests[stage]} == spoken


def test_test_subsets_are_prepared_and_go_into_neither_list(finished: Finished) -> None:
    (lists,) = finished.manifests["merge"]
    texts = {name: (Path(lists.uri) / f"{name}.data.list").read_text() for name in ("train", "dev")}
    assert "/train-clean-100/" in texts["train"]
    assert "/dev-clean/" in texts["dev"]
    assert "/test-clean/" not in texts["train"] + texts["dev"]


def test_training_lowers_the_loss(finished: Finished) -> None:
    (trained,) = finished.manifests["train"]
    assert trained.details["train_loss_last"] < trained.details["train_loss_first"]
    assert re.search(r"^Training loss +\d+\.\d+ in the first epoch", finished.shown, re.MULTILINE)


def test_models_are_registered_as_candidates_and_marked_as_made_with_stand_ins(finished: Finished) -> None:
    from mlflow import MlflowClient

    (registered,) = finished.manifests["register"]
    uri = finished.arguments["mlflow_uri"]
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    versions = registered.details["versions"]
    assert sorted(versions) == ["cosyvoice2.tiny-llm", "cosyvoice2.tiny-llm-onnx", "cosyvoice2.tiny-llm-torchscript"]
    for name, number in versions.items():
        version = client.get_model_version_by_alias(name, "candidate")
        assert int(version.version) == number
        assert version.tags["cosyflow.stand_ins"] == "true"
        assert f"{name} version {number}" in finished.shown
    assert registered.stand_ins


def test_a_second_run_hands_on_everything(finished: Finished, work_dir: Path) -> None:
    again = run_pipeline(finished.arguments, work_dir / "second run")
    assert again.status == 0, again.shown
    assert all(manifest.reused for manifests in again.manifests.values() for manifest in manifests)
    for stage in NUMBERS:
        assert re.search(rf"^{stage} +reused ", again.shown, re.MULTILINE), stage


def test_a_deleted_output_is_made_again_and_nothing_else(finished: Finished, work_dir: Path) -> None:
    (dev,) = [manifest for manifest in finished.manifests["speech-token"] if manifest.name == "dev-clean"]
    (Path(dev.uri) / "utt2speech_token.pt").unlink()
    again = run_pipeline(finished.arguments, work_dir / "third run")
    assert again.status == 0, again.shown
    worked = [(m.stage, m.name) for manifests in again.manifests.values() for m in manifests if not m.reused]
    assert worked == [("speech-token", "dev-clean")]


def test_a_subset_that_is_not_at_the_url_is_named(finished: Finished, work_dir: Path) -> None:
    arguments = {**finished.arguments, "dev_subsets": ["dev-other"]}
    failed = run_pipeline(arguments, work_dir / "failed run")
    assert failed.status == 1
    (line,) = [line for line in failed.shown.splitlines() if line.startswith("FAILED")]
    assert "stage download dev-other: " in line
    assert finished.arguments["data_url"] in line
    assert json.loads((work_dir / "data" / "download" / "dev-clean" / "latest.json").read_text())["name"] == "dev-clean"
