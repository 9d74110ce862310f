"""What counts as a checkpoint of a folder, in which order, and which are chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cosyflow import storage
from cosyflow.checkpoint.folder import Checkpoint, checkpoint_at, list_checkpoints
from cosyflow.checkpoint.select import best, newest
from cosyflow.checkpoint.state import Position, Snapshot
from cosyflow.checkpoint.writer import CheckpointWriter
from cosyflow.errors import CosyFlowError


def write(directory: Path, name: str, **record: object) -> None:
    (directory / f"{name}.pt").write_bytes(b"weights")
    (directory / f"{name}.yaml").write_text(yaml.safe_dump(record))


def names(checkpoints: list[Checkpoint]) -> list[str]:
    return [checkpoint.name for checkpoint in checkpoints]


def test_names_of_a_training_are_ordered_by_themselves_and_others_by_their_yaml(tmp_path: Path) -> None:
    for name in ("epoch_10_whole", "epoch_2_step_90", "epoch_2_step_100", "epoch_2_whole", "epoch_1_whole"):
        write(tmp_path, name)  # without epoch and step: a broken yaml does not make it older
    write(tmp_path, "mine", epoch=2, step=95)
    write(tmp_path, "init", epoch=-1, step=0)
    (tmp_path / "no_yaml.pt").write_bytes(b"weights")
    (tmp_path / "epoch_3_whole.yaml").write_text("epoch: 3\nstep: 3\n")
    trained = ["epoch_1_whole", "epoch_2_step_90", "epoch_2_step_100", "epoch_2_whole", "epoch_10_whole"]
    assert names(list_checkpoints(str(tmp_path))) == trained
    assert names(list_checkpoints(str(tmp_path), any_name=True)) == [*trained[:2], "mine", *trained[2:]]


def test_a_yaml_that_is_no_text_is_no_record(tmp_path: Path) -> None:
    write(tmp_path, "epoch_0_whole")
    (tmp_path / "epoch_0_whole.yaml").write_bytes(b"\xff\xfe\xff")
    (checkpoint,) = list_checkpoints(str(tmp_path))
    assert checkpoint.record == {}


def test_a_checkpoint_is_found_by_its_weights(tmp_path: Path) -> None:
    write(tmp_path, "epoch_0_whole", epoch=0, step=4)
    found = checkpoint_at(str(tmp_path / "epoch_0_whole.pt"))
    assert found is not None
    assert (found.name, found.update, found.has_state) == ("epoch_0_whole", 4, False)
    assert checkpoint_at(str(tmp_path / "epoch_1_whole.pt")) is None


LOSSES = st.none() | st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(LOSSES, max_size=8), st.integers(0, 8))
def test_the_best_are_those_that_no_other_is_better_than(losses: list[float | None], num: int) -> None:
    everything = [
        Checkpoint("run", f"epoch_{step}_whole", {"epoch": step, "step": step, "loss_dict": {"loss": loss}}, False)
        for step, loss in enumerate(losses)
    ]
    finite = [loss for loss in losses if loss is not None and abs(loss) < float("inf")]
    chosen = best(everything, num)
    assert [each.validation_loss for each in chosen] == sorted(finite)[:num]
    assert newest(everything, num) == everything[::-1][:num]


def test_a_run_that_may_not_write_any_more_changes_nothing(tmp_path: Path) -> None:
    def refuse() -> None:
        raise CosyFlowError("another run holds this folder")

    snapshot = Snapshot({}, {})
    writer = CheckpointWriter(str(tmp_path), {}, 1, 1)
    writer.save(snapshot, Position(epoch=1, update=5), "same", {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with storage.fenced(str(tmp_path), refuse), pytest.raises(CosyFlowError, match="another run holds this folder"):
        writer.save(snapshot, Position(epoch=2, update=9), "same", {})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("writes", range(4))
def test_a_run_that_is_overtaken_while_it_writes_commits_nothing(tmp_path: Path, writes: int) -> None:
    """It has written files, and without a yaml they are no checkpoint."""
    left = iter([None] * writes)

    def ask() -> None:
        if next(left, "overtaken") is not None:
            raise CosyFlowError("another run holds this folder")

    writer = CheckpointWriter(str(tmp_path), {}, 1, 1)
    with storage.fenced(str(tmp_path), ask), pytest.raises(CosyFlowError, match="another run holds this folder"):
        writer.save(Snapshot({}, {}), Position(epoch=1, update=5), "same", {})
    assert list_checkpoints(str(tmp_path)) == []
