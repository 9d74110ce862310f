"""The first and the last component of a run: the plan says all that is to be done, the report what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

import components
from components.conftest import MODEL, RUN_ID, UTTERANCES, Chain, names_of
from cosyflow.run import config
from cosyflow.run.execute import RUN_VARIABLE
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES

STAMPS = {f"stamp_{stage.replace('-', '_')}": stage for stage in STAGES}


def plan(described: str = "", **parameters: Any) -> Any:
    """The plan of a run whose other parameters have their defaults, as Kubeflow sends them."""
    defaults = {name: config.default_of(name) for name in config.PARAMETERS}
    return components.plan.python_func(run=described, **defaults | parameters)


def report(folder: Path, described: str = "", data_root: str = "", state: str = "SUCCEEDED", error: str = "") -> str:
    status = dsl.PipelineTaskFinalStatus(
        state=state,
        pipeline_job_resource_name="run",
        pipeline_task_name="run",
        error_code=1 if error else None,
        error_message=error or None,
    )
    page = dsl.Markdown(uri=str(folder / "report.md"))
    components.report.python_func(status=status, run=described, data_root=data_root, run_id="other", report=page)
    return Path(page.path).read_text()


def test_the_plan_has_the_record_the_subsets_and_what_is_to_be_done(chain: Chain) -> None:
    assert Record.read(chain.plan.record).run == config.from_parameters(chain.settings)
    assert chain.plan.subsets == list(UTTERANCES)
    assert chain.plan.todo == "something"
    assert {getattr(chain.plan, stamp) for stamp in STAMPS} == {RUN_ID}


@pytest.mark.slow
def test_of_finished_work_the_stamps_name_the_content(chain: Chain) -> None:
    for stage in STAGES:
        for name in names_of(stage):
            chain.made(stage, name)
    again = plan(**chain.settings)
    assert (again.record, again.todo) == (chain.plan.record, "nothing")
    for stamp, stage in STAMPS.items():
        digests = [chain.manifest(stage, name).digest for name in names_of(stage)]
        assert getattr(again, stamp) == "-".join(digest[:12] for digest in digests)


def test_a_runs_file_counts_and_a_changed_parameter_counts_more(chain: Chain, tmp_path: Path) -> None:
    described = config.from_parameters(chain.settings | {"num_utts_per_parquet": 7, "average_num": 1}).to_yaml()
    file = tmp_path / "run.yaml"
    file.write_text(described)
    for given in (described, str(file)):
        run = Record.read(plan(given, num_utts_per_parquet=5).record).run
        assert (run.num_utts_per_parquet, run.average_num) == (5, 1)
        assert run.data_url == chain.settings["data_url"]


def test_a_refusal_names_all_that_is_wrong_and_is_left_for_the_report(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "refused")
    wrong = {"data_root": str(tmp_path / "data"), "average_num": 3, "dev_subsets": ["dev", "gone"], "f0": "guess"}
    with pytest.raises(SystemExit, match=r"^2$"):
        plan(**chain.settings | wrong)
    lines = capsys.readouterr().err.splitlines()
    assert {line.split(": ")[1] for line in lines} == {"f0", "dev_subsets", "average_num"}
    assert all(line.startswith("error: ") for line in lines)
    written = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert written == ["data/runs/refused/plan.json"]
    page = report(tmp_path, data_root=str(tmp_path / "data"), state="FAILED", error="Task plan failed.")
    assert "- **plan** failed: f0: 'guess' is not one of auto, none, harvest, fast" in page


@pytest.mark.medium
def test_the_report_lists_the_tasks_of_its_own_run(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.made("prepare", "dev")
    chain.made("prepare", "train-b")
    monkeypatch.setenv(RUN_VARIABLE, "another")
    chain.call("prepare", "train-b")
    page = report(tmp_path, data_root=chain.settings["data_root"])
    assert [line.split(" | ")[:2] for line in page.splitlines() if line.startswith("| prepare")] == [
        ["| prepare", "train-b"]
    ]
    assert "| prepare | train-b | reused | 3 of 3 utterances, 1 speakers |" in page


@pytest.mark.slow
def test_the_report_shows_losses_versions_and_stand_ins(
    chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = chain.manifest("register", MODEL).details["versions"]
    monkeypatch.setenv(RUN_VARIABLE, "nothing to do")
    plan(**chain.settings)
    page = report(tmp_path, data_root=chain.settings["data_root"])
    assert page.startswith("# CosyFlow cosyvoice2.tiny llm\n\nEnded as **SUCCEEDED**.")
    assert [f"| {stage} | {name} | reused |" in page for stage in STAGES for name in names_of(stage)] == [True] * 25
    assert "Training loss" in page
    assert all(f"{name} version {version}" in page for name, version in versions.items())
    assert "Stand-in models took part" in page


@pytest.mark.parametrize("state", ["SUCCEEDED", "COMPLETE"])  # of a local run, of a server
def test_a_good_end_has_one_word(state: str, tmp_path: Path) -> None:
    assert "Ended as **SUCCEEDED**.\n" in report(tmp_path, data_root=str(tmp_path), state=state)


def test_the_report_says_where_the_reason_is_when_no_task_left_one(tmp_path: Path) -> None:
    page = report(tmp_path, data_root=str(tmp_path), state="FAILED")
    assert "The graph of the run shows which task did not succeed" in page
    assert "was killed" in report(tmp_path, data_root=str(tmp_path), state="FAILED", error="train was killed")


def test_the_report_finds_the_data_root_in_the_runs_file(chain: Chain, tmp_path: Path) -> None:
    chain.made("prepare", "dev")
    described = json.dumps({"data_root": chain.settings["data_root"]})  # YAML, too
    assert "| prepare | dev | " in report(tmp_path, described)
