"""A task of the graph: it hands on, works, or is left out; and its end stands where the run's report finds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from cosyflow.content import Digests
from cosyflow.errors import CosyFlowError
from cosyflow.run import chain, ends, task
from cosyflow.run.definition import Job
from cosyflow.run.ends import End
from cosyflow.run.execute import RUN_VARIABLE, is_skipped
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest, StageResult
from tests.unit.run.world import World, finish, with_work

LLM = "cosyvoice2.tiny-llm"


@dataclass
class Artifact:
    """As much of one of KFP as a task uses."""

    path: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class Metrics:
    logged: dict[str, float] = field(default_factory=dict)

    def log_metric(self, metric: str, value: float) -> None:
        self.logged[metric] = value


@pytest.fixture(autouse=True)
def within_a_run(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "run-1")


def work_small(monkeypatch: pytest.MonkeyPatch, **works: Any) -> None:
    small = {name: with_work(stage, works.get(name)) for name, stage in STAGES.items()}
    for module in (task, chain):
        monkeypatch.setattr(module, "STAGES", MappingProxyType(small))


class Tasks:
    """Runs tasks of a run one after the other, as a graph does."""

    def __init__(self, world: World, record: Record) -> None:
        self.folder, self.uri = world.folder / "kfp", record.write()
        self.made: dict[str, Artifact] = {}
        self.metrics = Metrics()

    def run(self, stage: str, *inputs: str, subset: str = "") -> Manifest:
        made = Artifact(str(self.folder / stage / (subset or "-".join(inputs)).replace("/", "-")))
        task.run_stage(stage, self.uri, [self.made[label] for label in inputs], made, self.metrics, subset)
        manifest = Manifest.read(made.path)
        self.made[f"{stage}/{manifest.name}"] = made
        return manifest

    def data(self, *subsets: str) -> None:
        for subset in subsets:
            self.run("download", subset=subset)
            self.run("prepare", f"download/{subset}")
            self.run("speaker-embedding", f"prepare/{subset}")
            self.run("speech-token", f"prepare/{subset}")
            self.run("parquet", f"prepare/{subset}", f"speaker-embedding/{subset}", f"speech-token/{subset}")


def left(world: World) -> dict[tuple[str, str], End]:
    return {(end.stage, end.name): end for end in ends.read_ends(str(world.data), "run-1")[0]}


@pytest.mark.medium
def test_a_whole_graph_makes_what_the_chain_names(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    work_small(monkeypatch)
    record = world.record(test_subsets=["train-c"])
    (world.speech / "train-c").mkdir()
    (world.speech / "train-c" / "file").touch()
    tasks = Tasks(world, record)
    tasks.data("dev", "train-c", "train-b", "train-a")  # as a server finishes them
    # all of them go in; the test subset is left out, and the rest put into the order of the lists
    tasks.run("merge", "parquet/dev", "parquet/train-c", "parquet/train-b", "parquet/train-a")
    trained = tasks.run("train", "merge/lists")
    tasks.run("average", f"train/{LLM}")
    tasks.run("export", f"average/{LLM}")
    registered = tasks.run("register", f"average/{LLM}", f"export/{LLM}")
    assert not registered.reused
    found = {link.label: link.finished for link in chain.walk(record, Digests())}
    assert all(found.values())
    assert found[f"train/{LLM}"] == trained
    assert {end.state for end in left(world).values()} == {"made"}
    assert len(left(world)) == 4 * 5 + 5


def test_a_task_describes_what_it_made_in_the_graph(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    work_small(monkeypatch)
    tasks = Tasks(world, world.record())
    made = tasks.run("download", subset="dev")
    artifact = tasks.made["download/dev"]
    assert artifact.metadata == {
        "stage": "download", "name": "dev", "uri": made.uri, "digest": made.digest, "reused": False,
        "stand_ins": False,
    }  # fmt: skip
    assert tasks.metrics.logged == {"inputs": 3.0, "outputs": 3.0, "rejects": 0.0, "seconds": made.seconds}
    assert tasks.run("download", subset="dev").reused
    assert left(world)["download", "dev"].state == "reused"
    assert left(world)["download", "dev"].read_manifest() == Manifest.read(artifact.path)


def test_beyond_the_last_stage_nothing_is_made(world: World) -> None:
    tasks = Tasks(world, world.record(stop_stage=-1))
    tasks.run("download", subset="dev")
    assert is_skipped(tasks.run("prepare", "download/dev"))
    assert is_skipped(tasks.run("speaker-embedding", "prepare/dev"))
    assert not (world.data / "prepare").exists()
    assert left(world)["prepare", "dev"].state == "skipped"
    assert left(world)["prepare", "dev"].read_manifest() is None


def test_beyond_the_last_stage_what_is_there_is_handed_on(world: World) -> None:
    finish(world.record(), "prepare")
    tasks = Tasks(world, world.record(stop_stage=-1))
    tasks.run("download", subset="dev")
    assert tasks.run("prepare", "download/dev").reused


@pytest.mark.medium
def test_beyond_the_last_stage_what_names_the_work_need_not_be_there(world: World) -> None:
    finish(world.record(), "prepare")
    (world.pretrained / "campplus.onnx").unlink()
    tasks = Tasks(world, world.record(stop_stage=0))
    tasks.run("download", subset="dev")
    tasks.run("prepare", "download/dev")
    assert is_skipped(tasks.run("speaker-embedding", "prepare/dev"))


def test_a_failure_is_told_in_a_line_and_left_for_the_report(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(job: Job) -> StageResult:
        raise CosyFlowError("the disk is full; make room")

    work_small(monkeypatch, download=fails)
    with pytest.raises(SystemExit) as ended:
        Tasks(world, world.record()).run("download", subset="dev")
    assert ended.value.code == 1
    assert "[download dev] failed: the disk is full; make room" in capsys.readouterr().out
    end = left(world)["download", "dev"]
    assert (end.state, end.error) == ("failed", "the disk is full; make room")


@pytest.mark.parametrize(
    ("error", "ends_with"), [(ZeroDivisionError("by zero"), SystemExit), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_defect_is_left_for_the_report_and_ends_the_task(
    world: World, monkeypatch: pytest.MonkeyPatch, error: BaseException, ends_with: type[BaseException]
) -> None:
    def fails(job: Job) -> StageResult:
        raise error

    work_small(monkeypatch, download=fails)
    with pytest.raises(ends_with):
        Tasks(world, world.record()).run("download", subset="dev")
    assert left(world)["download", "dev"].error.startswith(type(error).__name__)


def test_another_try_takes_the_place_of_a_failure(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    def fails_once(job: Job) -> StageResult:
        tries.append(job.output)
        if len(tries) == 1:
            raise CosyFlowError("a cable was pulled")
        return StageResult({}, [], digest=Path(job.output).name)

    work_small(monkeypatch, download=fails_once)
    tasks = Tasks(world, world.record())
    with pytest.raises(SystemExit):
        tasks.run("download", subset="dev")
    tasks.run("download", subset="dev")
    assert left(world)["download", "dev"].state == "made"
    assert tries[0] == tries[1]


def test_a_record_that_is_gone_is_told_in_a_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = Tasks(world, world.record())
    Path(tasks.uri).unlink()
    with pytest.raises(SystemExit) as ended:
        tasks.run("download", subset="dev")
    assert ended.value.code == 1
    assert f"[download dev] failed: {tasks.uri}" in capsys.readouterr().out
