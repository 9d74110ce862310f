"""Averaging what other trainers left: their names, their yaml with pickled tensors, their forms of weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from cosyflow.checkpoint.folder import list_checkpoints
from cosyflow.checkpoint.official import read_tensors
from cosyflow.errors import CosyFlowError
from cosyflow.release.average import average_model
from tests.unit.checkpoint.zero_files import write_zero

State = dict[str, Tensor]
RECORD = """\
epoch: {epoch}
step: {step}
loss_dict: {{loss: {loss}}}
grad_norm: !!python/object/apply:torch._utils._rebuild_tensor_v2
- !!python/object/apply:torch.storage._load_from_bytes [!!binary "gAI="]
- 0
dtype: !!python/name:torch.float32 ''
"""
"""As the official trainer writes it, with a tensor and a type that no safe reader builds."""
FORMS: dict[str, Callable[[Path, State], object]] = {
    "official": lambda path, state: torch.save({**state, "epoch": 3, "step": 70}, path.with_suffix(".pt")),
    "wrapped": lambda path, state: torch.save({"state_dict": state, "optimizer": {}}, path.with_suffix(".pt")),
    "safetensors": lambda path, state: save_file(state, path.with_suffix(".safetensors")),
    "ZeRO 2": lambda path, state: write_zero(path, state, stage=2, ranks=2),
    "ZeRO 3": lambda path, state: write_zero(path, state, stage=3, ranks=3),
}


def write_run(folder: Path, form: str) -> list[State]:
    """Three epochs of another trainer, the middle one the worst."""
    states = [{"weight": torch.randn(3, 5), "count": torch.randn(2)} for _ in range(3)]
    for epoch, (state, loss) in enumerate(zip(states, [1.0, 9.0, 2.0], strict=True)):
        FORMS[form](folder / f"epoch_{epoch}_whole", state)
        (folder / f"epoch_{epoch}_whole.yaml").write_text(RECORD.format(epoch=epoch, step=10 * epoch, loss=loss))
    return states


@pytest.mark.parametrize("form", FORMS)
def test_the_best_of_another_trainers_run_are_averaged(tmp_path: Path, form: str) -> None:
    first, _, last = write_run(tmp_path, form)
    average_model(str(tmp_path), str(tmp_path / "out" / "llm.pt"), num=2, val_best=True)
    averaged = read_tensors(tmp_path / "out" / "llm.pt")
    torch.testing.assert_close(averaged, {key: (first[key] + last[key]) / 2 for key in first})


def test_a_training_does_not_begin_where_deepspeed_left_its_folders(tmp_path: Path) -> None:
    write_run(tmp_path, "ZeRO 2")
    found = list_checkpoints(str(tmp_path))
    assert [checkpoint.name for checkpoint in found] == ["epoch_0_whole", "epoch_1_whole", "epoch_2_whole"]
    assert not any(checkpoint.is_ours or checkpoint.has_state for checkpoint in found)
    assert found[0].weights == str(tmp_path / "epoch_0_whole")


def test_what_is_no_run_says_what_it_is(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CosyFlowError, match=r"no checkpoint \(NAME.pt, .* and NAME.yaml\) to average"):
        average_model(str(tmp_path), str(tmp_path / "llm.pt"), num=1, val_best=False)
