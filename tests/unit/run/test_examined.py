"""What a run is looked at for before any work: what is done, what is there, and nothing is written for that."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from cosyflow.errors import RefusalError
from cosyflow.run import config
from cosyflow.run.plan import check, plan
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from cosyflow.run.stages.registry import lost_versions
from cosyflow.stage import LATEST, MANIFEST
from tests.unit.run.world import World, finish

LLM = "cosyvoice2.tiny-llm"


def refused(settings: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(RefusalError) as refusal:
        check(settings)
    return {problem.setting: problem.text for problem in refusal.value.problems}


def test_a_check_refuses_a_broken_chain_and_writes_nothing(world: World) -> None:
    settings = {**world.settings, "start_stage": 5}
    before = world.everything()
    assert "start_stage" in refused(settings)
    with pytest.raises(RefusalError):
        plan(settings)
    assert world.everything() == before
    assert not world.data.exists()


@pytest.mark.medium
def test_a_check_refuses_fewer_epochs_than_were_trained(world: World) -> None:
    finish(world.record())
    fewer = {**world.settings, "overrides": ["train_conf.max_epoch=7"], "average_num": 1}
    assert "has gone on to 12 epochs" in refused(fewer)["train_conf.max_epoch"]


@pytest.mark.medium
def test_an_interrupted_training_cannot_end_before_the_epochs_behind_it(world: World) -> None:
    made = finish(world.record())
    Path(made[f"train/{LLM}"].uri, MANIFEST).unlink()
    fewer = {**world.settings, "overrides": ["train_conf.max_epoch=7"], "average_num": 1}
    assert "has 12 epochs behind it" in refused(fewer)["train_conf.max_epoch"]


@pytest.mark.medium
def test_no_more_checkpoints_are_averaged_than_a_finished_training_kept(world: World) -> None:
    overrides = ["train_conf.max_epoch=3"]
    finish(world.record(overrides=overrides, average_num=1))
    record = Record.of(config.from_parameters({**world.settings, "overrides": overrides, "average_num": 4}))
    trained = finish(world.record(overrides=overrides, average_num=1))[f"train/{LLM}"]
    (problem,) = STAGES["average"].check_inputs(record, (trained,))
    assert "of this training 3 are kept" in problem.text


@pytest.mark.medium
def test_a_damaged_pointer_for_people_stops_no_run(world: World) -> None:
    made = finish(world.record())
    latest = Path(made["prepare/dev"].uri).parent / LATEST
    latest.write_text(latest.read_text()[:40])
    assert plan(world.settings).unfinished == []


@pytest.mark.medium
def test_places_are_known_however_they_are_written(world: World) -> None:
    finish(world.record())
    for data_root, data_url in (
        (f"file://{world.data}", f"{world.speech}/"),
        (f"{world.data}/", f"file://{world.speech}"),
    ):
        assert plan({**world.settings, "data_root": data_root, "data_url": data_url}).unfinished == []


def test_a_data_root_that_other_tasks_would_look_for_elsewhere_is_refused(world: World) -> None:
    assert "is not a whole path" in refused({**world.settings, "data_root": "exp/data"})["data_root"]


def test_equal_runs_have_one_digest_wherever_they_are_described(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world.record().digest
    assert world.record(subsets_at_once=7, resources={"train": {"memory_limit": "8Gi"}}).digest == here
    monkeypatch.chdir(tmp_path)
    assert world.record().digest == here


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("registered_model", "a/b", "no / and no :"),
        ("mlflow_uri", "foo://x/y", "not the address of a model registry"),
        ("checkpoint", "/", "is a folder"),
        ("resources", {"trian": {}}, "trian: no such stage"),
        ("resources", {"train": {"cpu": "1"}}, "cpu: not one of"),
    ],
)
def test_what_would_fail_late_is_refused(world: World, setting: str, value: Any, told: str) -> None:
    assert told in refused({**world.settings, setting: value})[setting]


@pytest.mark.parametrize("mark", ["latest", "model.safetensors"])
def test_a_folder_with_the_weights_of_one_model_is_started_from(world: World, mark: str) -> None:
    folder = world.folder / "weights"
    folder.mkdir()
    settings = {**world.settings, "checkpoint": str(folder)}
    assert "is a folder; name a file of weights in it" in refused(settings)["checkpoint"]
    (folder / mark).write_text("")
    check(settings)


def test_a_checkpoint_to_go_on_from_has_its_state(world: World) -> None:
    weights = world.folder / "epoch_3_whole.pt"
    for name in ("epoch_3_whole.pt", "epoch_3_whole.yaml"):
        (world.folder / name).write_text("")
    settings = {**world.settings, "resume_from": str(weights)}
    assert "with its state in the same folder" in refused(settings)["resume_from"]
    (world.folder / "epoch_3_whole.state.pt").write_text("")
    check(settings)


def test_versions_that_are_gone_from_a_registry_are_named(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    assert lost_versions(f"sqlite:///{file}", {"a": 1}) == ["a version 1"]
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE model_versions (name TEXT, version INTEGER, current_stage TEXT)")
        rows = [("a", 1, "None"), ("b", 2, "Deleted_Internal")]
        database.executemany("INSERT INTO model_versions VALUES (?, ?, ?)", rows)
    assert lost_versions(f"sqlite:///{file}", {"a": 1, "b": 2}) == ["b version 2"]
