"""Metrics sinks: the file of a resumed run, a real MLflow store, and one that is away."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from cosyflow import storage
from cosyflow.training.tracking import Tracker, tensorboard
from cosyflow.training.tracking import mlflow as ours
from cosyflow.training.tracking.metrics_file import MetricsFile
from cosyflow.training.tracking.mlflow import RUN_FILE, SPOOL_FILE, Mlflow, MlflowRun, noted_run
from cosyflow.training.tracking.tensorboard import TensorBoard


def entries(path: Path) -> list[tuple[int, float]]:
    return [(entry["update"], entry["loss"]) for entry in map(json.loads, path.read_text().splitlines())]


def test_a_resumed_run_goes_on_with_its_metrics_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(str(path), start=0)
    for update in (1, 2, 3, 4):
        first.write(update, {"loss": 10.0 - update})
    with path.open("a") as file:
        file.write('{"update": 5, "lo')  # killed within a line

    second = MetricsFile(str(path), start=2)  # the last checkpoint was that of update 2
    second.write(3, {"loss": 1.0})
    assert entries(path) == [(1, 9.0), (2, 8.0), (3, 1.0)]


def test_a_new_run_begins_a_new_metrics_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsFile(str(path), start=0).write(1, {"loss": 2.0})
    MetricsFile(str(path), start=0).write(1, {"loss": 3.0})
    assert entries(path) == [(1, 3.0)]


def test_tensorboard_gets_the_values(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(str(tmp_path), start=0)
    board.write(4, {"train/loss": 2.5})
    board.close(finished=True)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(4, 2.5)]


@pytest.mark.medium
def test_tensorboard_in_a_store_gets_the_values_of_every_start(
    s3_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are there while the training goes on, and a store that is away meanwhile costs none of them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def losses() -> list[tuple[int, float]]:
        storage.download_tree(s3_folder, tmp_path)
        events = EventAccumulator(str(tmp_path))
        events.Reload()
        return [(event.step, event.value) for event in events.Scalars("train/loss")]

    board = TensorBoard(s3_folder, start=0)
    board.write(1, {"train/loss": 4.0})
    assert losses() == [(1, 4.0)]
    monkeypatch.setattr(tensorboard, "SECONDS_BETWEEN_UPLOADS", 0.0)
    with monkeypatch.context() as away:
        away.setenv("COSYFLOW_S3_ENDPOINT", "http://127.0.0.1:9")
        board.write(2, {"train/loss": 3.0})
    board.close(finished=False)
    assert losses() == [(1, 4.0), (2, 3.0)]
    again = TensorBoard(s3_folder, start=1)
    again.write(2, {"train/loss": 2.5})
    again.close(finished=True)
    assert losses() == [(1, 4.0), (2, 2.5)]


def test_a_failing_sink_is_left_out_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    class FullDisk:
        def write(self, update: int, values: object) -> None:
            raise OSError("no space left on device")

        def close(self, finished: bool) -> None:
            raise AssertionError("it was left out")

    def no_library() -> FullDisk:
        raise ImportError("No module named 'board'")

    tracker = Tracker({"the disk": FullDisk, "the board": no_library})
    for update in (1, 2, 3):
        tracker.write(update, {"loss": 1.0})
    tracker.close(finished=True)
    assert capsys.readouterr().out.splitlines() == [
        "[train] warning: no more metrics go to the board (No module named 'board')",
        "[train] warning: no more metrics go to the disk (no space left on device)",
    ]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv(ours.RUN_ID_VARIABLE, raising=False)
    monkeypatch.setattr(ours, "SEND_INTERVAL_SECONDS", 0.05)
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def mlflow_run(uri: str) -> MlflowRun:
    return MlflowRun(uri, "an experiment", "cosyvoice2-llm", {"optim": "adam"}, {"kfp.pipeline_run_id": "7"})


@pytest.mark.slow
def test_mlflow_gets_metrics_settings_and_the_end_of_the_run(store: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    sink = Mlflow(mlflow_run(store), str(tmp_path))
    for update in (10, 20):
        sink.write(update, {"train/loss": 1.0 / update})
    sink.close(finished=False)  # interrupted

    client = MlflowClient(store)
    run_id = json.loads((tmp_path / RUN_FILE).read_text())["run_id"]
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("cosyvoice2-llm", "KILLED")
    assert run.data.params == {"optim": "adam"}
    assert run.data.tags["kfp.pipeline_run_id"] == "7"

    resumed = Mlflow(mlflow_run(store), str(tmp_path))
    resumed.write(30, {"train/loss": 0.01})
    resumed.close(finished=True)
    history = [(metric.step, metric.value) for metric in client.get_metric_history(run_id, "train/loss")]
    assert history == [(10, 0.1), (20, 0.05), (30, 0.01)]
    assert client.get_run(run_id).info.status == "FINISHED"
    assert not (tmp_path / SPOOL_FILE).exists()


@pytest.mark.slow
def test_a_run_of_somebody_else_is_joined_and_not_ended(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    theirs = client.create_run(client.create_experiment("theirs")).info.run_id
    monkeypatch.setenv(ours.RUN_ID_VARIABLE, theirs)
    sink = Mlflow(mlflow_run(store), str(tmp_path))
    sink.write(1, {"train/loss": 2.0})
    sink.close(finished=True)
    run = client.get_run(theirs)
    assert (run.info.status, run.data.metrics, run.data.params) == ("RUNNING", {"train/loss": 2.0}, {"optim": "adam"})
    assert run.data.tags["kfp.pipeline_run_id"] == "7"
    assert noted_run(str(tmp_path), store) == theirs
    assert noted_run(str(tmp_path), "") is None


@pytest.mark.slow
def test_a_dead_server_costs_one_warning_and_its_metrics_come_later(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setattr(ours, "RETRY_INTERVAL_SECONDS", 0.1)
    with socket.socket() as unused:  # bound and not listening: every connection is refused
        unused.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{unused.getsockname()[1]}"
        sink = Mlflow(mlflow_run(dead), str(tmp_path))
        for update in (1, 2, 3):
            sink.write(update, {"train/loss": float(update)})
        sink.close(finished=True)
    warnings = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert SPOOL_FILE in warnings[0]
    waiting = [json.loads(line)["update"] for line in (tmp_path / SPOOL_FILE).read_text().splitlines()]
    assert waiting == [1, 2, 3]

    back = Mlflow(mlflow_run(store), str(tmp_path))
    back.close(finished=True)
    run_id = json.loads((tmp_path / RUN_FILE).read_text())["run_id"]
    history = MlflowClient(store).get_metric_history(run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert not (tmp_path / SPOOL_FILE).exists()
