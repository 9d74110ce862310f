"""The graph under KFP's local runner: what is shown, what is logged, and how it ends."""

from __future__ import annotations

import io
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cosyflow.errors import RefusalError
from cosyflow.run.stages import STAGES
from pipelines.running import run
from tests.unit.pipelines.conftest import SUBSETS, UTTERANCES, data_only, make_corpus

pytestmark = pytest.mark.medium
WORKS = [("download", subset) for subset in SUBSETS] + [("prepare", subset) for subset in SUBSETS]


def run_here(settings: dict[str, Any], run_dir: Path) -> tuple[int, str, dict[str, Any]]:
    """Status, what the terminal showed, and the summary for programs."""
    terminal = io.StringIO()
    status = run(settings, run_dir, terminal)
    return status, terminal.getvalue(), json.loads((run_dir / "summary.json").read_text())


def states(summary: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(stage["stage"], stage["name"]): stage["state"] for stage in summary["stages"]}


@dataclass(frozen=True)
class Finished:
    folder: Path
    settings: dict[str, Any]
    status: int
    shown: str
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    settings = data_only(make_corpus(folder / "corpus"), folder / "data")
    return Finished(folder, settings, *run_here(settings, folder / "run"))


def test_a_run_works_up_to_its_last_stage_and_skips_the_rest(finished: Finished) -> None:
    """Also where the models are missing that those after it would need."""
    assert finished.status == 0, finished.shown
    every = states(finished.summary)
    assert {work for work, state in every.items() if state == "made"} == set(WORKS)
    assert {stage for stage, _ in every} == set(STAGES)
    assert all(state == "skipped" for work, state in every.items() if work not in WORKS)


def test_the_terminal_shows_the_stages_own_lines_and_the_log_has_all(finished: Finished) -> None:
    assert re.search(r"^prepare +\d\d:\d\d  made    2 subsets: 4 of 4 utterances", finished.shown, re.MULTILINE)
    assert re.search(r"^merge +skipped$", finished.shown, re.MULTILINE)
    for subset in SUBSETS:
        line = rf"^\[stage 2/10 prepare {subset}\] {UTTERANCES}/{UTTERANCES} utterances"
        assert re.search(line, finished.shown, re.MULTILINE), subset
    assert "KFP Executor" not in finished.shown
    assert "KFP Executor" in (finished.folder / "run" / "run.log").read_text()
    assert "Ended as **SUCCEEDED**" in Path(finished.summary["report"]).read_text()
    assert finished.summary["registered"] == []


def test_a_run_that_has_nothing_to_do_ends_at_once_and_starts_no_task(finished: Finished, tmp_path: Path) -> None:
    start = time.process_time()
    status, shown, again = run_here(finished.settings, tmp_path / "again")
    assert time.process_time() - start < 10
    assert status == 0
    assert not (tmp_path / "again" / "kfp").exists()
    assert "[stage" not in shown
    assert {work for work, state in states(again).items() if state == "reused"} == set(WORKS)
    assert "made" not in states(again).values()
    assert {stage["uri"] for stage in again["stages"]} == {stage["uri"] for stage in finished.summary["stages"]}
    assert re.search(r"^prepare +reused  2 subsets: 4 of 4 utterances", shown, re.MULTILINE)


def test_a_task_that_fails_is_named_with_its_reason(settings: dict[str, Any], corpus: Path, tmp_path: Path) -> None:
    (text,) = corpus.rglob("84_121_dev_0.normalized.txt")
    text.unlink()
    status, shown, summary = run_here(settings, tmp_path / "failed")
    assert status == 1
    (failure,) = [line for line in shown.splitlines() if line.startswith("FAILED")]
    assert re.match(r"FAILED after \d\d:\d\d: stage prepare dev: .*1 of 2 ", failure)
    assert "Traceback" not in shown
    assert "[stage 6/10 merge" not in shown
    assert states(summary).items() >= {("prepare", "dev"): "failed", ("download", "dev"): "made"}.items()
    (failed,) = [stage for stage in summary["stages"] if stage["state"] == "failed"]
    assert failed["error"] in failure
    report = Path(summary["report"]).read_text()
    assert "Ended as **FAILED**" in report
    assert f"- **prepare dev** failed: {failed['error']}" in report


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"dev_subsets": ["train-a"]}, "dev_subsets: train-a: named twice"),
        ({"start_stage": 0}, "start_stage: .*download/.*start at stage -1"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    wrong: dict[str, Any], told: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    terminal = io.StringIO()
    with pytest.raises(RefusalError, match=told):
        run(settings | wrong, tmp_path / "run", terminal)
    assert terminal.getvalue() == ""
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "data" / "runs").exists()
