"""Checkpoint files: what is kept, what counts as finished, and that the yaml is plain."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from cosyflow.errors import CosyFlowError
from cosyflow.training import checkpoints as ckpt
from cosyflow.training.checkpoints import CheckpointWriter, Position
from tests.unit.training.toy import NextToken, conf, run


def save_epochs(directory: Path, losses: list[float], keep_last: int, keep_best: int) -> None:
    writer = CheckpointWriter(str(directory), {"model": "toy"}, keep_last, keep_best)
    for number, loss in enumerate(losses):
        position = Position(epoch=number + 1, update=10 * (number + 1))
        writer.save({"w": torch.ones(2)}, {}, position, "same", {"tag": "CV", "loss_dict": {"loss": loss}})


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_the_best_and_the_last_epochs_are_kept(tmp_path: Path) -> None:
    save_epochs(tmp_path, [3.0, 1.0, 2.5, 2.0, 2.6, 2.9], keep_last=2, keep_best=2)
    kept = {"epoch_1_whole", "epoch_3_whole", "epoch_4_whole", "epoch_5_whole"}
    assert names(tmp_path) == {f"{tag}{end}" for tag in kept for end in (".pt", ".yaml")} | {"epoch_5_whole.state.pt"}


def test_a_checkpoint_within_an_epoch_goes_when_a_newer_one_is_there(tmp_path: Path) -> None:
    run(str(tmp_path), conf(save_per_step=3, max_epoch=1))  # updates 3 and 6, then the epoch's end at 7
    assert names(tmp_path) == {"epoch_0_whole.pt", "epoch_0_whole.yaml", "epoch_0_whole.state.pt"}


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


@pytest.mark.parametrize("lost", [".yaml", ".pt", ".state.pt"])
def test_an_unfinished_checkpoint_is_passed_over(tmp_path: Path, lost: str) -> None:
    """Whatever a kill leaves behind, the newest checkpoint that has all its files is found."""
    settings = conf(save_per_step=4)
    run(str(tmp_path), settings, max_updates=4)
    older = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run(str(tmp_path), settings, max_updates=5)
    for name, content in older.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / f"epoch_0_step_5{lost}").unlink()
    newest = ckpt.find_newest(str(tmp_path))
    assert newest is not None
    assert newest.tag == "epoch_0_step_4"

    run(str(tmp_path), settings, max_updates=6)
    assert {name.partition(".")[0] for name in names(tmp_path)} == {"epoch_0_step_6"}, "leftovers are removed"


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    run(str(tmp_path), conf(), max_updates=2)
    state = tmp_path / "epoch_0_step_2.state.pt"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(CosyFlowError, match=r"epoch_0_step_2.state.pt: damaged"):
        ckpt.load(ckpt.find_newest(str(tmp_path)))


def test_a_record_that_is_not_one_is_named(tmp_path: Path) -> None:
    run(str(tmp_path), conf(), max_updates=2)
    (tmp_path / "epoch_0_step_2.yaml").write_text("just: text\n")
    with pytest.raises(CosyFlowError, match=r"epoch_0_step_2.yaml: not the record"):
        ckpt.list_checkpoints(str(tmp_path))


def test_a_run_goes_on_from_an_object_store(s3_folder: str) -> None:
    whole, _ = run(None, conf(max_epoch=2))
    run(s3_folder, conf(max_epoch=2), max_updates=5)
    resumed, ending = run(s3_folder, conf(max_epoch=2))
    assert ending.position.update == 14
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name])
    tags = [checkpoint.tag for checkpoint in ckpt.list_checkpoints(s3_folder)]
    assert tags == ["epoch_0_whole", "epoch_1_whole"]
