"""A declared run: of equal ones the first that is planned works, the others end and have done nothing."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from typing import Any

import pytest

from cosyflow.errors import RefusalError
from cosyflow.run import config
from cosyflow.run.declared import Declared, claim, declared_in
from cosyflow.run.execute import RUN_VARIABLE
from cosyflow.run.record import Record
from cosyflow.run.stages.register import declared_tags
from tests.unit.run.world import World, plan_component

VOICE = Declared("voice", "0123456789abcdef" * 4, "r0", commit="0a1b2c")


def described(world: World, declared: Declared | None, **changed: Any) -> str:
    settings = config.from_parameters({**world.settings, **changed})
    import yaml

    return settings.to_yaml() + (yaml.safe_dump(declared.to_json()) if declared else "")


def plan(world: World, monkeypatch: pytest.MonkeyPatch, run: str, text: str) -> int:
    """The exit status of the component `plan` in a run of some id."""
    monkeypatch.setenv(RUN_VARIABLE, run)
    try:
        plan_component(text)
    except SystemExit as ended:
        return int(str(ended.code))
    return 0


def test_a_duplicate_ends_by_the_name_of_the_run_that_works_and_has_done_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = described(world, VOICE)
    assert plan(world, monkeypatch, "run-1", text) == 0
    before = world.everything()
    assert plan(world, monkeypatch, "run-2", text) == 2
    assert "duplicate of run run-1" in capsys.readouterr().err
    left = {path for path in world.everything() if path not in before}
    assert {path.removeprefix(str(world.data)) for path in left} == {"/runs/run-2/plan.json"}
    assert {path: world.everything()[path] for path in before} == before
    assert plan(world, monkeypatch, "run-1", text) == 0  # the task is started again


def test_versions_are_tagged_with_what_the_run_was_declared_as(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan(world, monkeypatch, "run-1", described(world, VOICE)) == 0
    assert plan(world, monkeypatch, "run-2", described(world, None)) == 0
    assert declared_tags(str(world.data), "run-1") == {
        "retraining": "voice",
        "retraining_content": VOICE.content,
        "retraining_commit": "0a1b2c",
    }
    for run in ("run-2", "run-of-nobody", ""):
        assert declared_tags(str(world.data), run) == {}


@pytest.mark.medium
def test_another_attempt_other_settings_and_a_run_of_somebody_are_no_duplicates(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plan(world, monkeypatch, "run-1", described(world, VOICE)) == 0
    assert plan(world, monkeypatch, "run-2", described(world, replace(VOICE, attempt="r1"))) == 0
    assert plan(world, monkeypatch, "run-3", described(world, VOICE, num_utts_per_parquet=5)) == 0
    for run in ("run-4", "run-5"):
        assert plan(world, monkeypatch, run, described(world, None)) == 0


def test_a_wrong_run_claims_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = described(world, VOICE).replace("max_reject_share: ", "max_reject_share: 7 # ")
    assert plan(world, monkeypatch, "run-1", wrong) == 2
    assert not list(world.data.glob("runs/claims/*/*"))


@pytest.mark.medium
def test_of_many_processes_at_once_one_has_the_claim(world: World) -> None:
    with multiprocessing.get_context("fork").Pool(6) as pool:
        claimed = pool.starmap(_claims, [(world.record(), f"run-{number}") for number in range(6)])
    assert sorted(claimed) == [False] * 5 + [True]


def _claims(record: Record, run: str) -> bool:
    try:
        claim(VOICE, record, run)
    except RefusalError:
        return False
    return True


@pytest.mark.parametrize("given", ["voice", "{retraining: a}", "{retraining: a, content: ../b, attempt: r0}", "[1]"])
def test_what_nothing_of_ours_has_written_is_refused(given: str) -> None:
    with pytest.raises(RefusalError, match="declared"):
        declared_in(f"data_root: s3://bucket/data\ndeclared: {given}\n")


def test_what_is_declared_is_no_setting(world: World) -> None:
    text = described(world, VOICE)
    assert "declared" not in config.read_run(text)
    assert declared_in(text) == VOICE
    assert declared_in("") is None
