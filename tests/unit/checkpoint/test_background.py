"""Checkpoints are written while the training goes on, and what befalls their place costs none that is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch

from cosyflow import storage
from cosyflow.checkpoint import files, writer
from cosyflow.checkpoint.background import BackgroundWriter
from cosyflow.checkpoint.folder import list_checkpoints
from cosyflow.checkpoint.state import Position, Snapshot, load, on_host
from cosyflow.checkpoint.writer import CheckpointWriter
from cosyflow.disk import ROOM
from cosyflow.errors import CosyFlowError, DiskError, PlaceError
from cosyflow.storage import local, patience
from tests.unit.disks import fill
from tests.unit.s3_proxy import proxy

SIZE = 50_000


def snapshot(value: float) -> Snapshot:
    return Snapshot({"w": torch.full((SIZE,), value)}, {"state": {0: {"exp_avg": torch.full((SIZE,), -value)}}})


def position(update: int) -> Position:
    return Position(epoch=0, batch=update, update=update)


def background(folder: str, tell: Callable[[str], None], start: int = 0) -> BackgroundWriter:
    return BackgroundWriter(CheckpointWriter(folder, {}, keep_last=1, keep_best=1, start=start), tell)


def save(checkpoints: BackgroundWriter, *updates: int) -> None:
    for update in updates:
        checkpoints.save(snapshot(update), position(update), "same", {})


def saved(folder: str) -> dict[int, float]:
    """The value of each checkpoint that a run can go on from, by its update."""
    found = {}
    for checkpoint in list_checkpoints(folder):
        resumption = load(checkpoint)
        value, moment = resumption.snapshot.weights["w"], resumption.snapshot.optimizer["state"][0]["exp_avg"]
        assert torch.equal(value, -moment)
        assert len(value.unique()) == 1
        found[resumption.position.update] = float(value[0])
    return found


def test_the_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is what was there when it was asked for."""
    may_write, place = threading.Event(), position(1)

    def write_later(content: Any, uri: str) -> None:
        assert may_write.wait(60)
        files.write_file(content, uri)

    monkeypatch.setattr(writer, "write_file", write_later)
    with background(str(tmp_path), [].append) as checkpoints:
        checkpoints.save(snapshot(1.0), place, "same", {})
        place.update = 2  # the loop goes on
        assert saved(str(tmp_path)) == {}
        may_write.set()
    assert saved(str(tmp_path)) == {1: 1.0}


def test_checkpoints_are_written_one_by_one_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, str]] = []

    def write_slowly(content: Any, uri: str) -> None:
        name = Path(uri).name.partition(".")[0]
        events.append(("begins", name))
        time.sleep(0.01)
        files.write_file(content, uri)
        events.append(("ends", name))

    monkeypatch.setattr(writer, "write_file", write_slowly)
    with background(str(tmp_path), [].append) as checkpoints:
        save(checkpoints, 1, 2, 3)
    names = [f"epoch_0_step_{update}" for update in (1, 1, 2, 2, 3, 3)]  # the state, then the weights
    assert events == [(what, name) for name in names for what in ("begins", "ends")]
    assert saved(str(tmp_path)) == {2: 2.0, 3: 3.0}, "the states that are kept"


@pytest.mark.medium
def test_a_full_disk_costs_no_checkpoint_that_is_there(small_disk: Path) -> None:
    """It is said once, and the training goes on."""
    folder = str(small_disk / "model")
    lines: list[str] = []
    with background(folder, lines.append) as checkpoints:
        save(checkpoints, 1)
    ballast = fill(small_disk, 10_000)

    def tell(line: str) -> None:
        lines.append(line)
        assert 1 in saved(folder)
        ballast.unlink(missing_ok=True)

    with background(folder, tell, start=1) as checkpoints:
        save(checkpoints, 2, 3)
    assert saved(folder) == {1: 1.0, 3: 3.0}
    failed, again = lines
    assert failed.startswith(
        f"warning: checkpoint epoch_0_step_2 is not saved ({folder}/epoch_0_step_2.state.pt: No space"
    )
    assert ROOM in failed
    assert again == "checkpoint epoch_0_step_3 is saved again"


@pytest.mark.medium
def test_the_last_checkpoint_must_be_written(small_disk: Path) -> None:
    folder = str(small_disk / "model")
    lines: list[str] = []
    with background(folder, lines.append) as checkpoints:
        save(checkpoints, 1)
    fill(small_disk, 10_000)
    with pytest.raises(DiskError, match="step_4"), background(folder, lines.append, start=1) as checkpoints:
        save(checkpoints, 2, 3, 4)
    assert saved(folder) == {1: 1.0}
    assert len(lines) == 1, "three failed, and one line says so"


@pytest.mark.medium
def test_a_store_that_is_away_costs_no_checkpoint_that_is_there(
    s3_folder: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setenv("COSYFLOW_S3_PATIENCE", "0.1")
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
    with proxy(s3_endpoint) as (address, plan):
        monkeypatch.setenv("COSYFLOW_S3_ENDPOINT", address)
        plan.operation, plan.fault, plan.times, plan.where = "PUT", "InternalError", float("inf"), "step_2"
        with background(s3_folder, lines.append) as checkpoints:
            save(checkpoints, 1, 2, 3)
        assert saved(s3_folder) == {1: 1.0, 3: 3.0}
    assert "epoch_0_step_2 is not saved" in lines[0]
    assert lines[0].endswith("goes on, the last one is epoch_0_step_1")


def test_what_is_no_fault_of_the_place_ends_the_training_at_the_next_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "epoch_0_step_1.pt").write_bytes(b"of another trainer")
    complaint = r"epoch_0_step_1\.pt: another trainer wrote it"
    with background(str(tmp_path), [].append) as checkpoints:
        save(checkpoints, 1)
        with pytest.raises(CosyFlowError, match=complaint):
            save(checkpoints, 2)
    assert saved(str(tmp_path)) == {}


def test_an_error_of_the_training_waits_for_what_is_being_written(tmp_path: Path) -> None:
    def fail() -> None:
        with background(str(tmp_path), [].append) as checkpoints:
            save(checkpoints, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert saved(str(tmp_path)) == {1: 1.0}


def test_a_disk_that_gives_back_other_bytes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def forgetful(uri: str) -> Iterator[BinaryIO]:
        with local.LocalFiles().open_write(uri) as stream:
            yield stream
            stream.seek(-1, 2)
            stream.write(b"?")

    monkeypatch.setattr(storage, "open_write", forgetful)
    with pytest.raises(PlaceError, match=r"w\.pt: other bytes are read than were written"):
        files.write_file({"w": torch.ones(3)}, str(tmp_path / "w.pt"))


def test_a_copy_keeps_what_is_shared_and_nothing_that_changes() -> None:
    weight, other = torch.ones(3), torch.ones(3)
    copy = on_host({"embed": weight, "head": weight, "other": other, "groups": [{"params": [0]}], "lr": 0.1})
    weight.zero_()
    assert copy["embed"] is copy["head"]
    assert copy["embed"].tolist() == [1, 1, 1]
    assert copy["other"] is not copy["embed"]
    assert (copy["groups"], copy["lr"]) == ([{"params": [0]}], 0.1)
