"""What a run's tasks leave, and what its report and its summary say of them: its own tasks, and all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cosyflow.run import ends, entry
from cosyflow.run.ends import End, leave, leave_plan, read_ends
from cosyflow.run.execute import RUN_VARIABLE, made_by, skipped
from cosyflow.run.report import describe_counts, loss_lines, page, registry_lines, summary
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest
from tests.unit.run.world import World, finish

LLM = "cosyvoice2.tiny-llm"


def manifest(stage: str, name: str = "dev", **changed: Any) -> Manifest:
    values: dict[str, Any] = {
        "stage": stage, "name": name, "key": f"key of {stage}", "uri": f"/data/{stage}/{name}", "digest": "d",
        "counts": {"inputs": 3, "outputs": 2, "rejects": 1}, "files": {}, "folders": {}, "settings": {}, "inputs": [],
        "details": {}, "seconds": 4.0, "stand_ins": False,
    }  # fmt: skip
    return Manifest(**{**values, **changed})


TRAINED = manifest(
    "train", LLM, counts={"epochs": 2},
    details={"train_loss_first": 4.0, "train_loss_last": 1.0, "cv_loss_first": 2.0, "cv_loss_last": 2.5},
)  # fmt: skip
REGISTERED = manifest("register", LLM, counts={"versions": 1}, details={"versions": {LLM: "3"}})


@pytest.mark.parametrize(
    ("made", "state", "seconds"),
    [
        (manifest("prepare"), "made", 4.0),
        (manifest("prepare", reused=True), "reused", 0.0),
        (skipped(STAGES["prepare"], "dev"), "skipped", 0.0),
    ],
)
def test_an_end_says_what_was_done(world: World, made: Manifest, state: str, seconds: float) -> None:
    end = End.of(made)
    assert (end.stage, end.name, end.state, end.seconds) == ("prepare", "dev", state, seconds)
    leave(str(world.data), end, "run-1")
    assert read_ends(str(world.data), "run-1") == ([end], "")
    assert end.read_manifest() == (None if state == "skipped" else made)


def test_outside_of_a_run_nothing_is_left(world: World) -> None:
    leave(str(world.data), End.of(manifest("prepare")))
    leave_plan(str(world.data), [], "record")
    assert not world.data.exists()
    assert ends.run_id() == ""


def test_two_runs_below_one_data_root_do_not_mix(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for run, stage in (("run-1", "prepare"), ("run-10", "download")):
        monkeypatch.setenv(RUN_VARIABLE, run)
        leave(str(world.data), End.of(manifest(stage)))
    for run, stage in (("run-1", "prepare"), ("run-10", "download")):
        ((end,), _) = read_ends(str(world.data), run)
        assert end.stage == stage
        told = page(str(world.data), run, "SUCCEEDED")
        assert f"| {stage} | dev | made |" in told
        assert told.count("| dev |") == 1


def test_a_task_that_ran_tells_more_than_the_plan_that_foresaw_it(world: World) -> None:
    root, record = str(world.data), world.record().write()
    foreseen = [End.of(manifest("download", reused=True)), End.of(manifest("prepare", reused=True))]
    leave_plan(root, foreseen, record, "run-1")
    leave(root, End("prepare", "dev", "failed", 1.0, "the output was deleted"), "run-1")
    found, uri = read_ends(root, "run-1")
    assert [(end.stage, end.state) for end in found] == [("download", "reused"), ("prepare", "failed")]
    assert uri == record


def test_the_page_of_a_good_run(world: World) -> None:
    root, record = str(world.data), world.record()
    downloaded = manifest("download", reused=True, counts={"files": 4, "bytes": 2_000_000})
    leave_plan(root, [End.of(downloaded)], record.write(), "run-1")
    for made in (REGISTERED, TRAINED, manifest("prepare", stand_ins=True), skipped(STAGES["export"], LLM)):
        leave(root, End.of(made), "run-1")
    assert page(root, "run-1", "SUCCEEDED").splitlines() == [
        "# CosyFlow cosyvoice2.tiny llm",
        "",
        "Ended as **SUCCEEDED**.",
        "",
        "",
        "| stage | of | | made | seconds |",
        "|---|---|---|---|---|",
        "| download | dev | reused | 4 files, 2.0 MB |  |",
        "| prepare | dev | made | 2 of 3 utterances, 1 rejected | 4.0 |",
        f"| train | {LLM} | made | 2 epochs | 4.0 |",
        f"| export | {LLM} | skipped |  |  |",
        f"| register | {LLM} | made | 1 versions | 4.0 |",
        "",
        "Training loss    4.000 in the first epoch, 1.000 in the last (-75%)  ",
        "Validation loss  2.000 in the first epoch, 2.500 in the last (+25%)  ",
        f"Registered       {LLM} version 3  ",
        "",
        "Stand-in models took part: nothing here is fit for use.",
        "",
        f"Settings: `{record.uri}`",
    ]


def test_the_page_of_a_failed_run_names_the_stage_and_the_reason(world: World) -> None:
    root = str(world.data)
    leave(root, End.of(manifest("download")), "run-1")
    leave(root, End("prepare", "dev", "failed", 2.0, "dev/text:3 has no value"), "run-1")
    told = page(root, "run-1", "FAILED", "a task ended with status 1")
    assert "Ended as **FAILED**.\n" in told
    assert "- **prepare dev** failed: dev/text:3 has no value" in told
    assert "| download | dev | made |" in told
    assert "| prepare |" not in told
    assert "status 1" not in told  # the reason says more


def test_where_no_task_could_leave_a_reason_the_servers_own_counts(world: World) -> None:
    assert "Ended as **FAILED**. ImagePullBackOff" in page(str(world.data), "run-1", "FAILED", "ImagePullBackOff")
    assert "The graph of the run shows which task" in page(str(world.data), "run-1", "FAILED")


def test_what_cannot_be_read_is_said_on_the_page(world: World) -> None:
    leave_plan(str(world.data), [], str(world.folder / "gone.json"), "run-1")
    told = page(str(world.data), "run-1", "SUCCEEDED")
    assert "Ended as **SUCCEEDED**" in told
    assert "cannot be read: " in told
    assert "gone.json" in told


def test_a_refused_run_has_a_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "run-1")
    described = json.dumps({"data_root": str(world.data), "model": "x", "f0": "y"})
    with pytest.raises(SystemExit):
        entry.begin(described, {})
    entry.write_report(described, "", "other", "FAILED", "", str(world.folder / "report.md"))
    told = (world.folder / "report.md").read_text()
    assert "- **plan** failed: f0: 'y' is not one of" in told
    assert "; model: 'x' is not one of" in told


@pytest.mark.parametrize(
    ("state", "shown"), [("COMPLETE", "SUCCEEDED"), ("SUCCEEDED", "SUCCEEDED"), ("FAILED", "FAILED")]
)
def test_a_servers_word_for_the_end(world: World, state: str, shown: str) -> None:
    entry.write_report("", str(world.data), "run-1", state, "", str(world.folder / "report.md"))
    assert f"Ended as **{shown}**" in (world.folder / "report.md").read_text()


@pytest.mark.parametrize("described", ["data_root: /data", '{"data_root": "/data"}'])
def test_the_data_root_of_a_run_is_in_its_file(described: str) -> None:
    assert entry.data_root_of(f"{described}\n", "") == "/data"
    assert entry.data_root_of(described, "/given") == "/given"
    assert entry.data_root_of("/nowhere/run.yaml", "") == ""


def test_the_summary_for_programs_has_the_numbered_stages() -> None:
    every = [
        End.of(REGISTERED),
        End("plan", "", "failed", 0.0, "x"),
        End("prepare", "dev", "failed", 2.0, "why"),
        End.of(manifest("download", reused=True)),
        End.of(skipped(STAGES["train"], LLM)),
    ]
    assert summary(every, "report.md") == {
        "stages": [
            {"stage": "download", "name": "dev", "key": "key of download", "uri": "/data/download/dev",
             "state": "reused", "seconds": 0.0},
            {"stage": "prepare", "name": "dev", "key": "", "uri": "", "state": "failed", "seconds": 2.0,
             "error": "why"},
            {"stage": "train", "name": LLM, "key": "", "uri": "", "state": "skipped", "seconds": 0.0},
            {"stage": "register", "name": LLM, "key": "key of register", "uri": f"/data/register/{LLM}",
             "state": "made", "seconds": 4.0},
        ],
        "registered": [{"name": LLM, "version": "3"}],
        "report": "report.md",
    }  # fmt: skip


def test_counts_are_told_in_words(world: World) -> None:
    made = finish(world.record(), "prepare")
    assert describe_counts([made["prepare/dev"], made["prepare/train-a"]]) == "6 of 6 utterances"
    assert describe_counts([manifest("merge", counts={"train_utterances": 1234, "shard_bytes": 1_500_000})]) == (
        "1,234 train utterances, 1.5 MB shard"
    )
    assert describe_counts([]) == ""


def test_only_a_training_has_losses_and_only_a_registration_versions() -> None:
    assert loss_lines(REGISTERED) == registry_lines(TRAINED) == []
    zero = manifest("train", details={"train_loss_first": 0.0, "train_loss_last": 0.0})
    assert loss_lines(zero) == ["Training loss    0.000 in the first epoch, 0.000 in the last (no change)"]


def test_a_file_of_an_end_is_found_below_the_run(world: World) -> None:
    leave(str(world.data), End.of(manifest("prepare")), "run-1")
    assert Path(world.data, "runs", "run-1", "prepare.dev.json").is_file()


@pytest.mark.parametrize(("run", "has_page"), [("7d1f", True), ("local-20261129-101112-1a2b3c", False)])
def test_only_a_run_that_a_server_knows_has_a_page_there(
    world: World, monkeypatch: pytest.MonkeyPatch, run: str, has_page: bool
) -> None:
    monkeypatch.setenv(RUN_VARIABLE, run)
    told = made_by(world.record(ui_url="http://kubeflow/pipeline/"))
    assert told["run"] == run
    assert told.get("url") == (f"http://kubeflow/pipeline/#/runs/details/{run}" if has_page else None)
