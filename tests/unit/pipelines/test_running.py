"""The whole graph under KFP's local runner: what is shown, what is logged, and how it ends."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import pytest

from cosyflow.stages import NUMBERS, SUBSET_STAGES
from pipelines.running import run
from tests.stage_outputs import finish_stage

SUBSETS = {"train_subsets": ["train-a", "train-b"], "dev_subsets": ["dev"], "test_subsets": ["none"]}
OUTSIDE = {"start_stage": 4, "stop_stage": 4}
"""No stage has the number 4, so none works."""


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """Every stage finished, as by an earlier run."""
    root = tmp_path / "data"
    for stage in NUMBERS:
        names = ["train-a", "train-b", "dev"] if stage in SUBSET_STAGES else ["cosyvoice2.tiny-llm"]
        for name in ["lists"] if stage == "merge" else names:
            finish_stage(root, stage, name)
    return root


def arguments(data_root: Path, **changed: object) -> dict[str, object]:
    return {"recipe": "cosyvoice2.tiny", "data_root": str(data_root), **SUBSETS, **OUTSIDE, **changed}


def test_every_stage_outside_the_range_hands_on_what_an_earlier_run_made(data_root: Path, tmp_path: Path) -> None:
    terminal = io.StringIO()
    assert run(arguments(data_root), tmp_path / "run", terminal) == 0
    shown = terminal.getvalue()
    for place, stage in enumerate(NUMBERS, start=1):
        assert re.search(rf"^\[stage {place}/10 {stage} .*hands on {data_root}", shown, re.MULTILINE), stage
        assert re.search(rf"^{stage} +reused ", shown, re.MULTILINE), stage
    assert shown.count("[stage 5/10 parquet") == 3
    assert "KFP Executor" not in shown
    assert "KFP Executor" in (tmp_path / "run" / "run.log").read_text()
    assert "Ended as **SUCCEEDED**" in next((tmp_path / "run").rglob("report/summary")).read_text()


def test_a_failed_stage_is_named_with_its_error_in_one_line(data_root: Path, tmp_path: Path) -> None:
    (data_root / "prepare" / "dev" / "latest.json").unlink()
    terminal = io.StringIO()
    assert run(arguments(data_root), tmp_path / "run", terminal) == 1
    (failure,) = [line for line in terminal.getvalue().splitlines() if line.startswith("FAILED")]
    assert "stage prepare dev: " in failure
    assert f"{data_root}/prepare/dev/latest.json: no such file; run the stage prepare for dev first" in failure
    assert "Traceback" not in terminal.getvalue()
    assert "Traceback" in (tmp_path / "run" / "run.log").read_text()
    assert "[stage 6/10 merge" not in terminal.getvalue()
    assert "Ended as **FAILED**" in next((tmp_path / "run").rglob("report/summary")).read_text()


def test_stages_beyond_the_last_one_are_skipped_when_they_never_ran(data_root: Path, tmp_path: Path) -> None:
    shutil.rmtree(data_root)
    for name in ("train-a", "train-b", "dev"):
        speech = tmp_path / "speech" / name / "84" / "121"
        speech.mkdir(parents=True)
        (speech / f"84_121_{name}.wav").write_bytes(b"RIFF")
    only_download = {"start_stage": -1, "stop_stage": -1, "data_url": str(tmp_path / "speech")}
    terminal = io.StringIO()
    assert run(arguments(data_root, **only_download), tmp_path / "run", terminal) == 0
    assert re.search(r"^download +00:00  3 subsets: 0.0 MB, 3 files", terminal.getvalue(), re.MULTILINE)
    for stage in list(NUMBERS)[1:]:
        assert re.search(rf"^{stage} +skipped$", terminal.getvalue(), re.MULTILINE), stage


def test_what_cannot_work_is_refused_before_the_first_stage(data_root: Path, tmp_path: Path) -> None:
    terminal = io.StringIO()
    assert run(arguments(data_root, dev_subsets=["train-a"]), tmp_path / "run", terminal) == 1
    assert "stage plan: train-a: named twice among the train, dev and test subsets" in terminal.getvalue()
    assert "[stage" not in terminal.getvalue()
