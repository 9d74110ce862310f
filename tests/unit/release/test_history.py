"""A version's tags tell what the manifests tell, and lead back to them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.utils.validation import MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.release.history import LONGEST_TAG, digest_of, read_chain, tags_of
from cosyflow.release.register import register_models
from cosyflow.stage import MANIFEST, Manifest
from tests.finished_chain import MODEL, Pipeline


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(str(tmp_path / "data"))


def stage_of(pipeline: Pipeline, stage: str) -> Manifest:
    (found,) = Path(pipeline.root, stage).glob(f"*/*/{MANIFEST}")
    return Manifest.read(str(found))


def rewrite(manifest: Manifest) -> None:
    storage.write_text(storage.join(manifest.uri, MANIFEST), manifest.to_json())


def test_the_data_digest_is_that_of_the_lists_that_were_trained_on(pipeline: Pipeline) -> None:
    tags = tags_of(*pipeline.make())
    assert tags["data_digest"] == stage_of(pipeline, "merge").digest


def test_tags_tell_code_run_start_and_place(pipeline: Pipeline) -> None:
    pipeline.start, pipeline.mlflow_run_id = {"checkpoint": "7" * 64}, "r1"
    averaged, exported = pipeline.make()
    tags = tags_of(averaged, exported)
    assert tags["git_commit"] == "a" * 40
    assert tags["git_clean"] == "true"
    assert json.loads(tags["images"])["train"] == "cosyflow-train:1"
    assert tags["kfp_run_id"] == "kfp-1"
    assert tags["kfp_run_url"] == "http://kfp/#/runs/details/kfp-1"
    assert tags["mlflow_run_id"] == "r1"
    assert json.loads(tags["start_digest"]) == {"checkpoint": "7" * 64}
    assert tags["model_digest"] == averaged.digest
    assert tags["manifest"] == averaged.uri
    assert tags["cosyflow.stand_ins"] == "false"
    assert "config_digest" not in tags


def test_commit_and_run_are_those_of_the_training_though_another_run_averaged(pipeline: Pipeline) -> None:
    averaged, exported = pipeline.make()
    later = {"commit": "b" * 40, "clean": "false", "run": "kfp-2"}
    tags = tags_of(replace(averaged, made_by=later), replace(exported, made_by=later))
    assert (tags["git_commit"], tags["git_clean"], tags["kfp_run_id"]) == ("a" * 40, "true", "kfp-1")


def test_tags_tell_the_settings_that_are_not_defaults_and_the_whole_record(pipeline: Pipeline) -> None:
    averaged, exported = pipeline.make()
    tags = tags_of(averaged, exported, {"recipe": "cosyvoice2", "overrides": (), "average_num": 5})
    assert json.loads(tags["settings"]) == {"recipe": "cosyvoice2.tiny", "overrides": ["train_conf.max_epoch=2"]}
    assert tags["recipe"] == "cosyvoice2.tiny"
    record = storage.read_json(tags["settings_uri"])
    assert tags["recipe_digest"] == digest_of(record["recipe"])


@pytest.mark.medium
def test_settings_too_long_for_a_tag_are_left_to_the_record(pipeline: Pipeline, registry: str, tmp_path: Path) -> None:
    averaged, exported = pipeline.make()
    record = storage.read_json(pipeline.record)

    def tags_with(length: int) -> dict[str, str]:
        storage.write_json(pipeline.record, {**record, "run": {"instruct": "x" * (length - len('{"instruct": ""}'))}})
        return tags_of(averaged, exported)

    assert LONGEST_TAG <= MAX_MODEL_REGISTRY_TAG_VALUE_LENGTH
    assert "settings" not in tags_with(LONGEST_TAG + 1)
    tags = tags_with(LONGEST_TAG)
    register_models({"llm": storage.join(averaged.uri, "llm.pt")}, str(tmp_path / "out"), registry, tags)
    version = MlflowClient(registry, registry).get_model_version("llm", "1")
    assert version.tags["settings"] == tags["settings"]


def test_what_is_not_known_has_no_tag_but_the_commit_is_never_that_of_the_registering_code(
    pipeline: Pipeline, registry: str, tmp_path: Path
) -> None:
    averaged, exported = pipeline.make()
    rewrite(replace(stage_of(pipeline, "train"), made_by={}))
    tags = tags_of(averaged, exported)
    assert "kfp_run_id" not in tags
    register_models({"llm": storage.join(averaged.uri, "llm.pt")}, str(tmp_path / "out"), registry, tags)
    assert MlflowClient(registry, registry).get_model_version("llm", "1").tags["git_commit"] == "unknown"


def test_lists_that_were_made_again_are_not_those_that_were_trained_on(pipeline: Pipeline) -> None:
    averaged, exported = pipeline.make()
    rewrite(replace(stage_of(pipeline, "merge"), digest="d" * 64))
    with pytest.raises(CosyFlowError, match=f"{'d' * 64} is not .* of which train {MODEL} was made"):
        tags_of(averaged, exported)


def test_deleted_downloads_do_not_hinder_a_registration(pipeline: Pipeline) -> None:
    averaged, exported = pipeline.make()
    storage.remove(storage.join(pipeline.root, "download"))
    assert tags_of(averaged, exported)["data_digest"] == stage_of(pipeline, "merge").digest


def test_the_version_has_the_trainings_run_where_the_server_knows_it(pipeline: Pipeline, registry: str) -> None:
    client = MlflowClient(registry, registry)
    pipeline.mlflow_run_id = client.create_run("0").info.run_id
    pipeline.register(registry)
    assert client.get_model_version(MODEL, "1").run_id == pipeline.mlflow_run_id


def test_a_run_of_another_server_is_told_and_not_claimed(
    pipeline: Pipeline, registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    pipeline.mlflow_run_id = "0" * 32
    pipeline.register(registry)
    version = MlflowClient(registry, registry).get_model_version(MODEL, "1")
    assert version.tags["mlflow_run_id"] == "0" * 32
    assert not version.run_id


def test_the_parent_is_what_the_alias_pointed_to_before(registry: str, pipeline: Pipeline) -> None:
    client = MlflowClient(registry, registry)
    for epochs in (1, 2, 3):
        if epochs == 3:
            client.set_registered_model_alias(MODEL, "candidate", "1")
        replace(pipeline, epochs=epochs).register(registry)
    versions = [client.get_model_version(MODEL, str(number)) for number in (1, 2, 3)]
    assert [version.tags.get("parent_version") for version in versions] == [None, "1", "1"]


def test_without_the_alias_the_parent_is_the_newest_before(registry: str, pipeline: Pipeline) -> None:
    client = MlflowClient(registry, registry)
    for epochs in (1, 2, 3):
        replace(pipeline, epochs=epochs).register(registry)
        client.delete_registered_model_alias(MODEL, "candidate")
    assert client.get_model_version(MODEL, "3").tags["parent_version"] == "2"


def test_a_chain_names_each_manifest_once_and_each_before_what_went_in(pipeline: Pipeline, registry: str) -> None:
    chain = read_chain(pipeline.register(registry).uri)
    subset = ["parquet", "speaker-embedding", "speech-token", "prepare", "download"]
    whole = ["register", "export", "average", "train", "merge"]
    assert [manifest.stage for manifest in chain] == whole + 2 * subset
    assert [manifest.name for manifest in chain[5:]] == 5 * ["train-a"] + 5 * ["dev-a"]
    place = {manifest.uri: index for index, manifest in enumerate(chain)}
    assert all(place[source] > place[manifest.uri] for manifest in chain for source in manifest.sources)
