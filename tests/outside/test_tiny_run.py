"""A whole run, from archives to registered models: the files that it leaves, its numbers, and that it is done once."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from cosyflow.standins.corpus import serve
from tests.outside.tiny_run import (
    DEV,
    EPOCHS,
    MARKS,
    MODEL,
    MODEL_STAGES,
    STAGES,
    SUBSET_STAGES,
    SUBSETS,
    TRAIN,
    Places,
    make_places,
    manifest_files,
    read_manifests,
    run_pipeline,
)

pytestmark = MARKS

MANIFEST_KEYS = {"stage", "name", "key", "uri", "digest", "inputs", "files", "settings", "counts"}

TRAIN_LOSSES = [8.818560246199871, 8.80521379622621, 8.715645081245906, 8.650393826844262]
"""Of each update, as today's code trains. No change of how a run is described may change them."""

EPOCH_LOSSES = [8.81645827124489, 8.704781744677947]
CV_LOSSES = [8.821740269083199, 8.779331583198708]


@dataclass(frozen=True)
class Finished:
    """A run that ended, the manifests that were there then, and sizes and times of the files that these name."""

    ended: subprocess.CompletedProcess[str]
    contents: dict[Path, bytes]
    manifests: dict[tuple[str, str], dict[str, Any]]
    made: dict[Path, tuple[int, int]]


def finish(places: Places, url: str, run_name: str) -> Finished:
    ended = run_pipeline(places, url, run_name)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    contents = manifest_files(places)
    manifests = read_manifests(contents)
    files = [Path(manifest["uri"]) / name for manifest in manifests.values() for name in manifest["files"]]
    made = {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.exists()}
    return Finished(ended, contents, manifests, made)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    return make_places(tmp_path_factory.mktemp("tiny run"))  # with a space, as some home folders have


@pytest.fixture(scope="module")
def url(places: Places) -> Iterator[str]:
    with serve(places.archives) as address:
        yield address


@pytest.fixture(scope="module")
def first(places: Places, url: str) -> Finished:
    return finish(places, url, "first")


@pytest.fixture(scope="module")
def second(places: Places, url: str, first: Finished) -> Finished:
    return finish(places, url, "second")


@pytest.fixture(scope="module")
def metrics(places: Places, first: Finished) -> list[dict[str, Any]]:
    (path,) = places.data_root.glob("**/train/*/*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_stage_leaves_one_manifest_for_each_subset_or_model(first: Finished) -> None:
    expected = {(stage, subset) for stage in SUBSET_STAGES for subset in SUBSETS}
    expected |= {(stage, MODEL) for stage in MODEL_STAGES}
    assert expected <= first.manifests.keys()
    assert [stage for stage, _ in first.manifests].count("merge") == 1


def test_a_manifest_lies_below_its_stage_name_and_key_and_has_the_agreed_keys(first: Finished, places: Places) -> None:
    for path, content in first.contents.items():
        manifest = json.loads(content)
        assert manifest.keys() >= MANIFEST_KEYS
        below = path.parent.relative_to(places.data_root).parts
        assert list(below[-3:]) == [manifest["stage"], manifest["name"], manifest["key"]]
        assert Path(manifest["uri"]) == path.parent


def test_files_that_a_manifest_names_are_there_with_their_sizes(first: Finished) -> None:
    named = {
        Path(manifest["uri"]) / name: size
        for manifest in first.manifests.values()
        for name, size in manifest["files"].items()
    }
    assert {path: size for path, (size, _) in first.made.items()} == named
    assert all(manifest["files"] for manifest in first.manifests.values())


def test_what_went_into_a_stage_is_told_by_digests_back_to_the_archives(first: Finished) -> None:
    stage_of = {manifest["digest"]: stage for (stage, _), manifest in first.manifests.items()}
    reached: set[str] = set()
    waiting = [first.manifests["register", MODEL]]
    by_digest = {manifest["digest"]: manifest for manifest in first.manifests.values()}
    while waiting:
        manifest = waiting.pop()
        reached.add(stage_of[manifest["digest"]])
        waiting += [by_digest[digest] for digest in manifest["inputs"]]
    assert set(STAGES) <= reached


def test_no_utterance_is_lost_on_the_way(first: Finished, places: Places) -> None:
    spoken = places.utterances()
    for subset in SUBSETS:
        assert first.manifests["download", subset]["counts"]["utterances"] == spoken[subset]
        for stage in SUBSET_STAGES[1:]:
            assert first.manifests[stage, subset]["counts"]["outputs"] == spoken[subset], stage
    (counts,) = [manifest["counts"] for (stage, _), manifest in first.manifests.items() if stage == "merge"]
    assert (counts["train_utterances"], counts["dev_utterances"]) == (spoken[TRAIN], spoken[DEV])


def test_the_merged_lists_name_shards_that_hold_every_utterance(first: Finished, places: Places) -> None:
    (lists,) = [Path(manifest["uri"]) for (stage, _), manifest in first.manifests.items() if stage == "merge"]
    rows = {}
    for name in ("train", "dev"):
        shards = (lists / f"{name}.data.list").read_text(encoding="utf-8").splitlines()
        rows[name] = sum(pq.ParquetFile(shard).metadata.num_rows for shard in shards)
    assert rows == {"train": places.utterances()[TRAIN], "dev": places.utterances()[DEV]}


def test_a_checkpoint_of_each_epoch_has_its_losses_in_a_yaml_beside_it(first: Finished) -> None:
    folder = Path(first.manifests["train", MODEL]["uri"])
    for epoch in range(EPOCHS):
        assert (folder / f"epoch_{epoch}_whole.pt").is_file()
        beside = yaml.safe_load((folder / f"epoch_{epoch}_whole.yaml").read_text(encoding="utf-8"))
        assert beside["epoch"] == epoch


def test_the_losses_of_the_training_are_those_of_before(metrics: list[dict[str, Any]]) -> None:
    expected = {"train/loss": TRAIN_LOSSES, "train_epoch/loss": EPOCH_LOSSES, "cv/loss": CV_LOSSES}
    for name, losses in expected.items():
        assert [line[name] for line in metrics if name in line] == pytest.approx(losses, rel=1e-4), name


def test_the_summary_has_a_line_for_each_stage(first: Finished) -> None:
    for stage in STAGES:
        assert re.search(rf"^{stage} ", first.ended.stdout, re.MULTILINE), stage


def test_no_traceback_reaches_the_terminal(first: Finished, second: Finished) -> None:
    for run in (first, second):
        assert "Traceback" not in run.ended.stdout + run.ended.stderr


def test_a_second_run_of_the_same_command_makes_nothing_new(first: Finished, second: Finished) -> None:
    assert second.contents == first.contents
    assert second.made == first.made


def test_a_second_run_says_that_each_stage_is_reused(second: Finished) -> None:
    for stage in STAGES:
        assert re.search(rf"^{stage} .*\breused\b", second.ended.stdout, re.MULTILINE), stage


def test_the_averaged_model_is_registered_once_as_the_candidate(second: Finished, places: Places) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=places.mlflow_uri, registry_uri=places.mlflow_uri)
    assert int(client.get_model_version_by_alias(MODEL, "candidate").version) == 1
    assert len(client.search_model_versions(f"name='{MODEL}'")) == 1
