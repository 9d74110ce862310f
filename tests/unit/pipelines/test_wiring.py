"""What is wired to what: every input of every task of the compiled graph comes from where it should."""

from __future__ import annotations

import pytest

from cosyflow.run.config import PARAMETERS
from cosyflow.run.stages import STAGES
from pipelines.compiling import compile_pipelines
from tests.unit.pipelines.graph import Graph

pytestmark = pytest.mark.medium  # the graph is compiled


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    (path,) = compile_pipelines(tmp_path_factory.mktemp("compiled"))
    return Graph.read(path)


def test_the_tasks_are_the_stages_with_the_plan_before_and_the_report_after_them(graph: Graph) -> None:
    assert sorted(graph.leaves()) == sorted([*STAGES, "plan", "report"])


@pytest.mark.parametrize("name", ["run", *PARAMETERS])
def test_the_plan_gets_each_parameter_of_the_pipeline_under_its_name(name: str, graph: Graph) -> None:
    assert graph.source("plan", name) == name


def test_the_plan_gets_nothing_else(graph: Graph) -> None:
    assert graph.inputs("plan").keys() == {"run", *PARAMETERS}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_gets_the_outputs_of_the_stages_before_it(stage: str, graph: Graph) -> None:
    expected = {STAGES[before].makes: f"{before}.{STAGES[before].makes}" for before in STAGES[stage].inputs}
    expected |= {"record": "plan.record", "stamp": f"plan.stamp_{stage.replace('-', '_')}"}
    if not STAGES[stage].inputs:
        expected["subset"] = "each of plan.subsets"
    assert graph.inputs(stage) == expected


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        ("prepare", {"speech": "download.speech"}),
        ("speaker-embedding", {"kaldi_files": "prepare.kaldi_files"}),
        ("speech-token", {"kaldi_files": "prepare.kaldi_files"}),
        (
            "parquet",
            {
                "kaldi_files": "prepare.kaldi_files",
                "embeddings": "speaker-embedding.embeddings",
                "tokens": "speech-token.tokens",
            },
        ),
        ("merge", {"shards": "parquet.shards"}),
        ("train", {"lists": "merge.lists"}),
        ("average", {"checkpoints": "train.checkpoints"}),
        ("export", {"averaged_model": "average.averaged_model"}),
        ("register", {"averaged_model": "average.averaged_model", "exported_model": "export.exported_model"}),
    ],
)
def test_the_same_written_out(task: str, wanted: dict[str, str], graph: Graph) -> None:
    """Beside the table of stages, from which the test above is made: a mistake there would go unnoticed."""
    assert graph.inputs(task).items() >= wanted.items()


def test_the_stages_on_subsets_run_for_each_of_them_and_the_others_once(graph: Graph) -> None:
    (loop,) = [task for task in graph.tasks if "parameterIterator" in graph.tasks[task]]
    inside = graph.ir["components"][graph.tasks[loop]["componentRef"]["name"]]["dag"]["tasks"]
    assert set(inside) == {stage for stage in STAGES if STAGES[stage].per == "subset"}


def test_nothing_runs_where_nothing_is_to_be_done(graph: Graph) -> None:
    (task,) = [task for task in graph.tasks if "condition" in graph.tasks[task].get("triggerPolicy", {})]
    condition = graph.tasks[task]["triggerPolicy"]["condition"]
    assert condition == "inputs.parameter_values['pipelinechannel--todo'] == 'something'"
    assert graph.source(task, "pipelinechannel--todo") == "plan.todo"
    inside = graph.ir["components"][graph.tasks[task]["componentRef"]["name"]]["dag"]["tasks"]
    assert {"merge", "cosyvoice-training", "export", "register"} <= set(inside)


def test_the_report_knows_the_run_and_comes_after_all_whatever_happened(graph: Graph) -> None:
    assert graph.inputs("report") == {
        "run": "run",
        "data_root": "data_root",
        "run_id": "{{$.pipeline_job_uuid}}",
        "status": f"taskFinalStatus {{'producerTask': '{_everything(graph)}'}}",
    }
    assert graph.tasks["report"]["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert graph.tasks["report"]["dependentTasks"] == [_everything(graph)]


def _everything(graph: Graph) -> str:
    """The one task of the root beside the report."""
    (task,) = [task for task in graph.ir["root"]["dag"]["tasks"] if task != "report"]
    return str(task)
