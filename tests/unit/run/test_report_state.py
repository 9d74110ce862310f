"""How a run ended, where the server calls its group of tasks still running: the ends of the tasks tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cosyflow.run import ends, execute
from cosyflow.run.config import from_parameters
from cosyflow.run.ends import End
from cosyflow.run.record import Record
from cosyflow.run.report import UNKNOWN, page
from cosyflow.run.stages import STAGES

RUN = "run-1"


@pytest.fixture
def record(tmp_path: Path) -> Record:
    made = Record.of(from_parameters({"data_root": str(tmp_path / "data"), "recipe": "cosyvoice2.tiny"}))
    made.write()
    return made


def leave(record: Record, *left_out: str) -> None:
    """Ends of all tasks, as the plan leaves those of finished work."""
    found = [
        End.of(replace(execute.skipped(stage, name), details={}, reused=True))
        for stage in STAGES.values()
        for name in stage.names(record)
        if stage.name not in left_out
    ]
    ends.leave_plan(record.run.data_root, found, record.uri, RUN)


def test_a_run_of_which_everything_was_there_succeeded(record: Record) -> None:
    leave(record)
    assert "Ended as **SUCCEEDED**" in page(record.run.data_root, RUN, UNKNOWN)


def test_a_run_of_which_a_task_left_no_end_failed_and_the_graph_tells_more(record: Record) -> None:
    leave(record, "export", "register")
    text = page(record.run.data_root, RUN, UNKNOWN)
    assert "Ended as **FAILED**" in text
    assert "graph of the run shows which task" in text


def test_a_run_with_a_failed_task_failed(record: Record) -> None:
    leave(record, "export")
    ends.leave(record.run.data_root, End("export", record.model_name, "failed", 1.0, "no room"), RUN)
    text = page(record.run.data_root, RUN, UNKNOWN)
    assert "Ended as **FAILED**" in text
    assert "no room" in text


def test_a_run_without_a_plan_failed(tmp_path: Path) -> None:
    assert "Ended as **FAILED**" in page(str(tmp_path), RUN, UNKNOWN)


def test_a_refusal_is_told_under_the_name_of_the_plan(tmp_path: Path) -> None:
    ends.leave(str(tmp_path), End("plan", "", "failed", 0.0, "model: voice is none; give llm"), RUN)
    assert "- **plan** failed: model: voice is none; give llm" in page(str(tmp_path), RUN, "FAILED")


@pytest.mark.parametrize("state", ["SUCCEEDED", "FAILED"])
def test_what_the_server_knows_counts(record: Record, state: str) -> None:
    leave(record, *(["export"] if state == "SUCCEEDED" else []))
    assert f"Ended as **{state}**" in page(record.run.data_root, RUN, state)
