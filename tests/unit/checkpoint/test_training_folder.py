"""Checkpoint files: what is kept, what counts as finished, and that the yaml is plain."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import yaml

from cosyflow.checkpoint.folder import OURS, list_checkpoints
from cosyflow.checkpoint.state import Position, Snapshot, load
from cosyflow.checkpoint.writer import CheckpointWriter
from cosyflow.errors import CosyFlowError, RefusalError
from cosyflow.training.loop import train
from tests.unit.training.toy import ALONE, NextToken, conf, quiet, run, training


def save_epochs(directory: Path, losses: list[float], keep_last: int, keep_best: int) -> None:
    writer = CheckpointWriter(str(directory), {"model": "toy"}, keep_last, keep_best)
    for number, loss in enumerate(losses):
        position = Position(epoch=number + 1, update=10 * (number + 1))
        writer.save(Snapshot({"w": torch.ones(2)}, {}), position, "same", {"tag": "CV", "loss_dict": {"loss": loss}})


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_the_best_and_the_last_epochs_are_kept_and_the_last_two_states(tmp_path: Path) -> None:
    save_epochs(tmp_path, [3.0, 1.0, 2.5, 2.0, 2.6, 2.9], keep_last=2, keep_best=2)
    kept = {"epoch_1_whole", "epoch_3_whole", "epoch_4_whole", "epoch_5_whole"}
    states = {"epoch_4_whole.state.pt", "epoch_5_whole.state.pt"}
    assert names(tmp_path) == {f"{tag}{end}" for tag in kept for end in (".pt", ".yaml")} | states


def test_the_last_two_checkpoints_and_the_newest_whole_epoch_can_be_continued(tmp_path: Path) -> None:
    run(str(tmp_path), conf(save_per_step=2), max_updates=13)  # 7 updates an epoch: 8, 10 and 12 are in the second
    tags = {"epoch_0_whole", "epoch_1_step_12", "epoch_1_step_13"}
    assert names(tmp_path) == {f"{tag}{end}" for tag in tags for end in (".pt", ".state.pt", ".yaml")}
    assert all(load(checkpoint).snapshot.weights for checkpoint in list_checkpoints(str(tmp_path)))


def test_checkpoints_within_an_epoch_go_when_newer_ones_are_there(tmp_path: Path) -> None:
    run(str(tmp_path), conf(save_per_step=3, max_epoch=2))
    tags = {"epoch_0_whole", "epoch_1_step_12", "epoch_1_whole"}
    states = {"epoch_1_step_12.state.pt", "epoch_1_whole.state.pt"}
    assert names(tmp_path) == {f"{tag}{end}" for tag in tags for end in (".pt", ".yaml")} | states


def test_the_weights_are_the_bare_state_dict(tmp_path: Path) -> None:
    objective, _ = run(str(tmp_path), conf(max_epoch=1))
    saved = torch.load(tmp_path / "epoch_0_whole.pt", weights_only=True)
    assert list(saved) == list(objective.model.state_dict())
    NextToken().model.load_state_dict(saved, strict=True)


def test_the_record_is_plain_yaml_with_the_official_fields(tmp_path: Path) -> None:
    _, ending = run(str(tmp_path), conf(max_epoch=1))
    record = yaml.safe_load((tmp_path / "epoch_0_whole.yaml").read_text())
    assert {"tag", "step", "epoch", "batch_idx", "lr", "grad_norm", "loss_dict", "save_time"} <= record.keys()
    assert (record["tag"], record["epoch"], record["step"], record["model"]) == ("CV", 0, 7, "toy")
    assert record["loss_dict"]["loss"] == ending.position.epochs[0]["cv_loss"]


@pytest.mark.parametrize("lost", [".yaml", ".pt"])
def test_an_unfinished_checkpoint_is_passed_over(tmp_path: Path, lost: str) -> None:
    """Whatever a kill leaves behind, the newest checkpoint that has all its files is found."""
    settings = conf(save_per_step=4)
    run(str(tmp_path), settings, max_updates=5)
    (tmp_path / f"epoch_0_step_5{lost}").unlink()
    lines: list[str] = []
    run(str(tmp_path), settings, max_updates=6, lines=lines)
    assert lines == [], "nobody asked for it"
    assert {name.partition(".")[0] for name in names(tmp_path)} == {"epoch_0_step_4", "epoch_0_step_6"}, "no leftovers"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    """Changes a byte of the largest tensor, which torch.load does not notice."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + len(content) // 4] ^= 255
    path.write_bytes(content)
    torch.load(path, weights_only=True)


def other_format(path: Path) -> None:
    torch.save({**torch.load(path, weights_only=True), "format": 99}, path)


@pytest.mark.parametrize(
    ("file", "harm", "reason"),
    [
        (".state.pt", Path.unlink, "epoch_1_whole.state.pt is not there"),
        (".state.pt", truncate, r"epoch_1_whole.state.pt is damaged or not a checkpoint \(.*\)"),
        (".state.pt", other_format, "epoch_1_whole.state.pt is of another version of CosyFlow"),
        (".pt", truncate, r"epoch_1_whole.pt is damaged or not a checkpoint \(.*\)"),
        (".pt", flip, r"epoch_1_whole.pt is damaged or not a checkpoint \(wrong checksum of .*\)"),
        (".yaml", lambda path: path.write_text("just: text"), "epoch_1_whole.yaml is not the record of a checkpoint"),
    ],
)
def test_the_newest_usable_checkpoint_is_taken_and_a_line_says_why(
    tmp_path: Path, file: str, harm: Callable[[Path], object], reason: str
) -> None:
    whole, _ = run(str(tmp_path / "whole"), conf())
    run(str(tmp_path / "harmed"), conf(max_epoch=2))
    harm(tmp_path / "harmed" / f"epoch_1_whole{file}")
    lines: list[str] = []
    resumed, ending = run(str(tmp_path / "harmed"), conf(), lines=lines)
    (line,) = lines
    assert re.fullmatch(f"epoch_1_whole cannot be continued: {reason}; takes epoch_0_whole instead", line)
    assert ending.position.update == 21
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name])
    assert names(tmp_path / "harmed") == names(tmp_path / "whole")


def test_a_folder_without_any_usable_checkpoint_is_refused_and_left_alone(tmp_path: Path) -> None:
    run(str(tmp_path), conf(max_epoch=2))
    for state in tmp_path.glob("*.state.pt"):
        truncate(state)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RefusalError) as refusal:
        run(str(tmp_path), conf())
    (line,) = refusal.value.lines
    assert line.startswith(
        f"error: model_dir: {tmp_path}: epoch_1_whole cannot be continued: epoch_1_whole.state.pt is"
    )
    assert line.endswith(
        f"start from its weights (--checkpoint {tmp_path / 'epoch_1_whole.pt'} with another --model_dir), or bring back"
        " epoch_1_whole.state.pt"
    )
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def write_official(directory: Path, epochs: Sequence[int]) -> dict[str, bytes]:
    """Checkpoints as the official trainer writes them: losses are pickled tensors."""
    for epoch in epochs:
        torch.save(NextToken().model.state_dict(), directory / f"epoch_{epoch}_whole.pt")
        told = {"epoch": epoch, "step": 100 * epoch, "tag": "CV", "loss_dict": {"loss": torch.tensor(float(epoch))}}
        (directory / f"epoch_{epoch}_whole.yaml").write_text(yaml.dump(told))
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_run_of_the_official_trainer_is_refused(tmp_path: Path) -> None:
    before = write_official(tmp_path, [0, 1, 2])
    assert [checkpoint.is_ours for checkpoint in list_checkpoints(str(tmp_path))] == [False] * 3
    with pytest.raises(RefusalError, match=r"epoch_2_whole cannot be continued: epoch_2_whole.state.pt is not there"):
        run(str(tmp_path), conf())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_foreign_checkpoints_are_neither_overwritten_nor_removed(tmp_path: Path) -> None:
    run(str(tmp_path), conf(max_epoch=1))
    ours = names(tmp_path)
    before = {name: content for name, content in write_official(tmp_path, [3, 7]).items() if name not in ours}
    run(str(tmp_path), conf(max_epoch=3, keep_last=1, keep_best=1))
    with pytest.raises(CosyFlowError, match=r"epoch_3_whole.pt: another trainer wrote it, and it is not overwritten"):
        run(str(tmp_path), conf(max_epoch=4))
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert "epoch_0_whole.pt" not in names(tmp_path), "ours are"


def test_a_run_of_cosyflow_0_1_goes_on(tmp_path: Path) -> None:
    """It kept the newest state alone and did not write its name."""
    whole, _ = run(str(tmp_path / "whole"), conf())
    old = tmp_path / "old"
    run(str(old), conf(max_epoch=2))
    for path in old.glob("*.yaml"):
        record = yaml.safe_load(path.read_text())
        del record[OURS]
        path.write_text(yaml.safe_dump({**record, "compute_dtype": "float32", "keep_best": 5}))
    (old / "epoch_0_whole.state.pt").unlink()
    state = torch.load(old / "epoch_1_whole.state.pt", weights_only=True)
    for name in ("log_sums", "log_targets", "last_update"):
        del state["position"][name]
    torch.save(state, old / "epoch_1_whole.state.pt")
    assert all(checkpoint.is_ours for checkpoint in list_checkpoints(str(old)))
    resumed, _ = run(str(old), conf(keep_last=1, keep_best=1))
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name])
    assert "epoch_0_whole.pt" not in names(old)


def test_an_abandoned_way_is_not_taken_again(tmp_path: Path) -> None:
    """After going back to a whole epoch, checkpoints within an epoch of before are removed when there is a new one."""
    run(str(tmp_path), conf(save_per_step=4), max_updates=12)
    (whole,) = (entry for entry in list_checkpoints(str(tmp_path)) if entry.is_whole_epoch)
    resumption = load(whole)
    objective = NextToken()
    writer = CheckpointWriter(str(tmp_path), {}, 2, 2, resumption.position.update)
    settings = conf()
    train(training(objective, settings), quiet(settings, ALONE), writer, resumption, max_updates=9)
    assert [entry.name for entry in list_checkpoints(str(tmp_path))] == ["epoch_0_whole", "epoch_1_step_9"]


@pytest.mark.medium
def test_a_run_goes_on_from_an_object_store(s3_folder: str) -> None:
    whole, _ = run(None, conf(max_epoch=2))
    run(s3_folder, conf(max_epoch=2), max_updates=5)
    resumed, ending = run(s3_folder, conf(max_epoch=2))
    assert ending.position.update == 14
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name])
    tags = [checkpoint.name for checkpoint in list_checkpoints(s3_folder)]
    assert tags == ["epoch_0_whole", "epoch_1_whole"]
