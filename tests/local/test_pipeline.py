"""The whole pipeline on this machine: a spoken corpus, archives by URL, stand-in models, training, registry."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cosyflow.errors import RefusalError
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest
from cosyflow.standins import espeak
from cosyflow.standins.corpus import SPEAKERS, pack_corpus, serve, speak_corpus
from cosyflow.standins.models import make_stand_ins
from pipelines.demo import demo_settings, find_subsets
from pipelines.running import run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not espeak.is_installed(), reason="the corpus is spoken by the optional espeakng-loader"),
]

SUBSETS = ("train-clean-100", "dev-clean", "test-clean")
EPOCHS = 2


@dataclass(frozen=True)
class Finished:
    """A run that ended: its settings, how it ended, what the terminal showed, and its summary for programs."""

    settings: dict[str, Any]
    status: int
    shown: str
    summary: dict[str, Any]

    def states(self) -> dict[tuple[str, str], str]:
        return {(entry["stage"], entry["name"]): entry["state"] for entry in self.summary["stages"]}

    def manifests(self, stage: str) -> list[Manifest]:
        """What a stage made or handed on."""
        entries = [entry for entry in self.summary["stages"] if entry["stage"] == stage]
        return [Manifest.read(str(Path(entry["uri"]) / "manifest.json")) for entry in entries]


def run_pipeline(settings: dict[str, Any], run_dir: Path) -> Finished:
    terminal = io.StringIO()
    status = run(settings, run_dir, terminal)
    return Finished(settings, status, terminal.getvalue(), json.loads((run_dir / "summary.json").read_text()))


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole pipeline")  # with a space, as some home folders have


@pytest.fixture(scope="module")
def settings(work_dir: Path) -> Iterator[dict[str, Any]]:
    make_stand_ins(work_dir / "pretrained")
    speak_corpus(work_dir / "corpus", [speaker for speaker in SPEAKERS if speaker.subset in SUBSETS])
    pack_corpus(work_dir / "corpus", work_dir / "archives")
    with serve(work_dir / "archives") as url:
        tree = find_subsets(work_dir / "corpus")
        overrides = {"overrides": [f"train_conf.max_epoch={EPOCHS}"], "average_num": EPOCHS}
        yield demo_settings(tree, url, work_dir / "pretrained", work_dir) | overrides


@pytest.fixture(scope="module")
def finished(settings: dict[str, Any], work_dir: Path) -> Finished:
    return run_pipeline(settings, work_dir / "first run")


def test_every_stage_works_and_says_so(finished: Finished) -> None:
    assert finished.status == 0, finished.shown
    for place, stage in enumerate(STAGES, start=1):
        assert re.search(rf"^\[stage {place}/10 {stage}", finished.shown, re.MULTILINE), stage
        assert re.search(rf"^{stage} +\d\d:\d\d  made ", finished.shown, re.MULTILINE), stage
    assert set(finished.states().values()) == {"made"}
    assert "KFP Executor" not in finished.shown


def test_no_utterance_is_lost_on_the_way(finished: Finished, work_dir: Path) -> None:
    spoken = {subset: len(list((work_dir / "corpus" / subset).rglob("*.wav"))) for subset in SUBSETS}
    for stage in ("prepare", "speaker-embedding", "speech-token", "parquet"):
        assert {manifest.name: manifest.counts["outputs"] for manifest in finished.manifests(stage)} == spoken


def test_test_subsets_are_prepared_and_go_into_neither_list(finished: Finished) -> None:
    (lists,) = finished.manifests("merge")
    texts = {name: (Path(lists.uri) / f"{name}.data.list").read_text() for name in ("train", "dev")}
    assert "/train-clean-100/" in texts["train"]
    assert "/dev-clean/" in texts["dev"]
    assert "/test-clean/" not in texts["train"] + texts["dev"]


def test_training_lowers_the_loss(finished: Finished) -> None:
    (trained,) = finished.manifests("train")
    assert trained.details["train_loss_last"] < trained.details["train_loss_first"]
    assert re.search(r"^Training loss +\d+\.\d+ in the first epoch", finished.shown, re.MULTILINE)


def test_models_are_registered_as_candidates_and_marked_as_made_with_stand_ins(finished: Finished) -> None:
    from mlflow import MlflowClient

    (registered,) = finished.manifests("register")
    uri = finished.settings["mlflow_uri"]
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    versions = registered.details["versions"]
    assert sorted(versions) == ["cosyvoice2.tiny-llm", "cosyvoice2.tiny-llm-onnx", "cosyvoice2.tiny-llm-torchscript"]
    for name, number in versions.items():
        version = client.get_model_version_by_alias(name, "candidate")
        assert int(version.version) == number
        assert version.tags["cosyflow.stand_ins"] == "true"
        assert f"{name} version {number}" in finished.shown
    assert registered.stand_ins
    told = {entry["name"]: entry["version"] for entry in finished.summary["registered"]}
    assert told == versions


def test_a_second_run_has_nothing_to_do(finished: Finished, work_dir: Path) -> None:
    start = time.process_time()
    again = run_pipeline(finished.settings, work_dir / "second run")
    assert time.process_time() - start < 10
    assert again.status == 0, again.shown
    assert again.states() == dict.fromkeys(finished.states(), "reused")
    assert not (work_dir / "second run" / "kfp").exists()
    for stage in STAGES:
        assert re.search(rf"^{stage} +reused ", again.shown, re.MULTILINE), stage
    versions = [{entry["name"]: entry["version"] for entry in run.summary["registered"]} for run in (again, finished)]
    assert versions[0] == versions[1]


def test_a_deleted_output_is_made_again_and_nothing_else(finished: Finished, work_dir: Path) -> None:
    (dev,) = [manifest for manifest in finished.manifests("speech-token") if manifest.name == "dev-clean"]
    (Path(dev.uri) / "utt2speech_token.pt").unlink()
    again = run_pipeline(finished.settings, work_dir / "third run")
    assert again.status == 0, again.shown
    assert [work for work, state in again.states().items() if state == "made"] == [("speech-token", "dev-clean")]
    report = Path(again.summary["report"]).read_text()
    assert "| speech-token | dev-clean | made |" in report
    assert "| speech-token | train-clean-100 | reused |" in report


def test_a_training_that_fails_is_named_with_its_reason(finished: Finished, work_dir: Path) -> None:
    """Weights that the training cannot start from: they are there, so nothing can be said of them beforehand."""
    weights = work_dir / "weights.pt"
    weights.write_bytes(b"not weights")
    failed = run_pipeline({**finished.settings, "checkpoint": str(weights)}, work_dir / "failed run")
    assert failed.status == 1
    (line,) = [line for line in failed.shown.splitlines() if line.startswith("FAILED")]
    assert re.match(r"FAILED after \d\d:\d\d: stage train cosyvoice2\.tiny-llm: ", line)
    assert "weights.pt" in line
    states = failed.states()
    assert states["merge", "lists"] == "reused"
    assert [work for work, state in states.items() if state == "failed"] == [("train", "cosyvoice2.tiny-llm")]
    report = Path(failed.summary["report"]).read_text()
    assert "- **train cosyvoice2.tiny-llm** failed: " in report
    assert "| average |" not in report


def test_a_subset_that_is_not_at_the_url_is_refused_before_any_work(finished: Finished, work_dir: Path) -> None:
    with pytest.raises(
        RefusalError, match=rf"^dev_subsets: {finished.settings['data_url']}/dev-other\.tar\.gz: no such"
    ):
        run_pipeline({**finished.settings, "dev_subsets": ["dev-other"]}, work_dir / "refused run")
    assert not (work_dir / "refused run").exists()
