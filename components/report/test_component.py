"""Component report: says how a run ended and what there is."""

from __future__ import annotations

from pathlib import Path

import pytest
from kfp import dsl

from components import report
from components.conftest import Finish

SUBSETS = {"train_subsets": ["train-a"], "dev_subsets": ["dev"], "test_subsets": ["none"]}


def write_report(data_root: Path, state: str, message: str | None, recipe: str = "cosyvoice2.tiny") -> str:
    status = dsl.PipelineTaskFinalStatus(
        state=state,
        pipeline_job_resource_name="run",
        pipeline_task_name="run",
        error_code=1 if message else None,
        error_message=message,
    )
    page = dsl.Markdown(uri=str(data_root.parent / "summary.md"))
    report.python_func(
        status=status, data_root=str(data_root), recipe=recipe, overrides=[], **SUBSETS, model="llm", summary=page
    )
    return Path(page.path).read_text()


def test_tells_the_end_and_the_newest_outputs_of_this_recipe(data_root: Path, finish: Finish) -> None:
    finish("prepare", "train-a")
    finish("train", "cosyvoice2.tiny-llm")
    finish("train", "another-llm")
    page = write_report(data_root, "FAILED", "Task merge failed.")
    assert "Ended as **FAILED**. Task merge failed." in page
    assert "| prepare | train-a | 2 of 3 utterances, 1 rejected |" in page
    assert "| train | cosyvoice2.tiny-llm |" in page
    assert "another-llm" not in page


@pytest.mark.parametrize("state", ["SUCCEEDED", "COMPLETE"])  # of a local run, of a server
def test_tells_a_good_end_by_one_word(state: str, data_root: Path) -> None:
    assert "Ended as **SUCCEEDED**.\n" in write_report(data_root, state, None)


def test_tells_where_the_reason_is_when_the_server_gives_none(data_root: Path) -> None:
    assert "The graph of the run shows which task did not succeed" in write_report(data_root, "FAILED", None)


def test_tells_the_end_even_when_the_recipe_is_wrong(data_root: Path) -> None:
    page = write_report(data_root, "FAILED", "Task plan failed.", recipe="cosyvoice9")
    assert "Ended as **FAILED**" in page
    assert "cosyvoice9: no such recipe" in page
