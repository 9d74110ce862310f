"""Averaging picks the right checkpoints, computes in float32 and names what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from cosyflow.checkpoint.folder import Checkpoint, list_checkpoints
from cosyflow.checkpoint.select import best, newest
from cosyflow.cli import main
from cosyflow.release.average import average_weights


def save(directory: Path, stem: str, epoch: int, step: int, loss: float | None, **weights: torch.Tensor) -> None:
    torch.save(weights | {"epoch": epoch, "step": step}, directory / f"{stem}.pt")
    info = {"epoch": epoch, "step": step} | ({} if loss is None else {"tag": "CV", "loss_dict": {"loss": loss}})
    (directory / f"{stem}.yaml").write_text(yaml.safe_dump(info))


def names(chosen: list[Checkpoint]) -> list[str]:
    return [Path(checkpoint.weights).name for checkpoint in chosen]


@pytest.fixture
def training_run(tmp_path: Path) -> Path:
    for epoch, loss in enumerate([3.0, 1.0, 2.0]):
        save(tmp_path, f"epoch_{epoch}_whole", epoch, 10 * (epoch + 1), loss, w=torch.full((2,), float(epoch)))
    save(tmp_path, "epoch_2_step_25", 2, 25, 0.5, w=torch.full((2,), 8.0))
    save(tmp_path, "init", -1, 0, None, w=torch.zeros(2))
    return tmp_path


def test_the_best_by_validation_loss(training_run: Path) -> None:
    chosen = best(list_checkpoints(str(training_run), any_name=True), 2)
    assert names(chosen) == ["epoch_2_step_25.pt", "epoch_1_whole.pt"]


def test_the_newest_without_val_best(training_run: Path) -> None:
    chosen = newest(list_checkpoints(str(training_run), any_name=True), 2)
    assert names(chosen) == ["epoch_2_whole.pt", "epoch_2_step_25.pt"]


def test_bfloat16_is_averaged_in_float32(tmp_path: Path) -> None:
    values = [1.0, 1.0, 1.0 + 2**-7]  # their bfloat16 sum rounds to 3.0, whose third is 1.0
    for number, value in enumerate(values):
        save(tmp_path, f"epoch_{number}_whole", number, number, 1.0, w=torch.tensor([value, value * 256]).bfloat16())
    mean = average_weights([str(tmp_path / f"epoch_{number}_whole.pt") for number in range(3)])["w"]
    assert mean.dtype == torch.bfloat16
    assert mean.tolist() == torch.tensor([sum(values) / 3, sum(values) / 3 * 256]).bfloat16().tolist()


def test_an_official_yaml_with_a_pickled_tensor_is_read(training_run: Path) -> None:
    path = training_run / "epoch_0_whole.yaml"
    pickled = "grad_norm: !!python/object/apply:torch._utils._rebuild_tensor_v2\n- !!python/tuple []\n"
    path.write_text(path.read_text() + pickled)
    assert names(list_checkpoints(str(training_run), any_name=True))[0] == "epoch_0_whole.pt"


def run_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    status = main(["average", *arguments])
    return status, capsys.readouterr().err.splitlines()


def test_the_command_writes_a_bare_state_dict(training_run: Path) -> None:
    output = training_run / "llm.pt"
    status = main(["average", "--dst_model", str(output), "--src-path", str(training_run), "--num", "2", "--val_best"])
    assert status == 0
    assert torch.load(output, weights_only=True)["w"].tolist() == [4.5, 4.5]
    assert set(torch.load(output, weights_only=True)) == {"w"}


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda run: [path.unlink() for path in run.glob("*.pt")], "no checkpoint"),
        (lambda run: (run / "epoch_1_whole.yaml").write_text("just text"), "epoch_1_whole.yaml: not the yaml of"),
        (lambda run: (run / "epoch_1_whole.pt").write_bytes(b"junk"), "epoch_1_whole.pt: not a readable checkpoint"),
        (lambda run: torch.save({"v": torch.zeros(2)}, run / "epoch_1_whole.pt"), "the key v is not in both"),
        (lambda run: torch.save({"w": torch.zeros(3)}, run / "epoch_1_whole.pt"), "w has the shape"),
    ],
    ids=["none", "yaml", "junk", "keys", "shapes"],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(
    training_run: Path, capsys: pytest.CaptureFixture[str], spoil, complaint: str
) -> None:
    spoil(training_run)
    before = sorted(path.name for path in training_run.iterdir())
    output = training_run / "llm.pt"
    status, errors = run_command(
        capsys, "--dst_model", str(output), "--src_path", str(training_run), "--num", "3", "--val_best"
    )
    assert status == 1
    assert len(errors) == 1
    assert complaint in errors[0]
    assert sorted(path.name for path in training_run.iterdir()) == before
