"""Folders of DeepSpeed: the weights come out of the parts of all ranks, and nothing else of the files is built."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cosyflow.checkpoint.official import read_form, read_tensors
from cosyflow.checkpoint.zero_folder import is_zero_folder
from cosyflow.errors import CosyFlowError
from tests.unit.checkpoint.zero_files import write_zero

SHAPES = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=2, max_size=5)


def tensors_of(shapes: list[list[int]]) -> dict[str, Tensor]:
    return {f"layer.{number}.weight": torch.randn(shape) for number, shape in enumerate(shapes)}


SMALL = tensors_of([[3, 5], [7], [2, 2, 2], [4]])


@pytest.mark.medium
@given(shapes=SHAPES, stage=st.sampled_from([1, 2, 3]), ranks=st.integers(1, 12))
def test_all_weights_are_collected(shapes: list[list[int]], stage: int, ranks: int) -> None:
    """For any shapes and ranks, also where a rank has nothing but padding."""
    state = tensors_of(shapes)
    with TemporaryDirectory() as folder:
        write_zero(Path(folder, "epoch_0_whole"), state, stage, ranks)
        found, form = read_form(Path(folder))
    torch.testing.assert_close(found, state, rtol=0, atol=0)
    assert form == f"a checkpoint of DeepSpeed, epoch_0_whole, float32 weights of ZeRO {stage} from {ranks} ranks"


@pytest.mark.parametrize("stage", [2, 3])
def test_weights_that_are_not_trained_are_there_in_their_own_type(tmp_path: Path, stage: int) -> None:
    write_zero(tmp_path / "global_step3", SMALL, stage, 3, frozen=("layer.1.weight",))
    found = read_tensors(tmp_path / "global_step3")
    assert found["layer.1.weight"].dtype == torch.bfloat16
    torch.testing.assert_close(found.pop("layer.1.weight"), SMALL["layer.1.weight"].bfloat16(), rtol=0, atol=0)
    torch.testing.assert_close(found, {name: SMALL[name] for name in found}, rtol=0, atol=0)


def test_latest_names_the_checkpoint_and_each_can_be_named(tmp_path: Path) -> None:
    older = {name: value + 1 for name, value in SMALL.items()}
    write_zero(tmp_path / "global_step100", SMALL, 2, 2)
    write_zero(tmp_path / "global_step20", older, 2, 2)
    (tmp_path / "latest").write_text("global_step100\n")
    torch.testing.assert_close(read_tensors(tmp_path), SMALL)
    torch.testing.assert_close(read_tensors(tmp_path / "global_step20"), older)
    (tmp_path / "latest").unlink()
    with pytest.raises(CosyFlowError, match=r"2 checkpoints of DeepSpeed .* name one of global_step20, global_step100"):
        read_tensors(tmp_path)


def test_without_the_optimizers_the_models_file_is_enough_up_to_stage_2(tmp_path: Path) -> None:
    write_zero(tmp_path / "two", SMALL, 2, 2)
    write_zero(tmp_path / "three", SMALL, 3, 2)
    for file in tmp_path.glob("*/*optim_states.pt"):
        file.unlink()
    assert read_tensors(tmp_path / "two")["layer.0.weight"].dtype == torch.bfloat16
    with pytest.raises(CosyFlowError, match=r"three: ZeRO 3 keeps the weights in zero_pp_rank_\*_optim_states.pt"):
        read_tensors(tmp_path / "three")


def without_a_rank(folder: Path) -> None:
    (folder / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()


def with_a_part_of_another_model(folder: Path) -> None:
    (folder / "mp_rank_01_model_states.pt").write_bytes(b"")


def with_a_shorter_part(folder: Path) -> None:
    file = folder / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
    optimizer = {"zero_stage": 3, "partition_count": 3, "fp32_flat_groups": [torch.ones(2)]}
    torch.save({"optimizer_state_dict": optimizer}, file)


def with_other_things(folder: Path) -> None:
    file = folder / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
    optimizer = {"zero_stage": 3, "partition_count": 3, "fp32_flat_groups": "none"}
    torch.save({"optimizer_state_dict": optimizer}, file)


def with_a_latest_elsewhere(folder: Path) -> None:
    (folder.parent / "latest").write_text("../../etc")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_a_rank, "written by 3 ranks, and 2 files of optimizers and 3 of models are there; copy the whole"),
        (with_a_part_of_another_model, "split over ranks"),
        (with_a_shorter_part, "is longer than what the ranks saved"),
        (with_other_things, "fp32_flat_groups is a str"),
        (with_a_latest_elsewhere, "names '../../etc', which is no checkpoint there"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path, change: Callable[[Path], None], said: str) -> None:
    write_zero(tmp_path / "global_step3", SMALL, 3, 3)
    change(tmp_path / "global_step3")
    with pytest.raises(CosyFlowError, match=said):
        read_tensors(tmp_path)


class Harmful:
    def __reduce__(self) -> Any:
        return os.system, ("echo ran > harmed",)


def test_other_objects_are_refused_and_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_zero(tmp_path / "global_step3", SMALL, 3, 2)
    file = tmp_path / "global_step3" / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"
    torch.save({"optimizer_state_dict": {"zero_stage": Harmful()}}, file)
    with pytest.raises(CosyFlowError, match=rf"{file.name}.*it holds posix.system") as refused:
        read_tensors(tmp_path)
    assert "weights_only" not in str(refused.value)
    assert not (tmp_path / "harmed").exists()


def test_other_folders_are_no_folders_of_deepspeed(tmp_path: Path) -> None:
    assert not is_zero_folder(tmp_path)
    (tmp_path / "CosyVoice-BlankEN").mkdir()
    assert not is_zero_folder(tmp_path)


TRAINING = """
import sys, torch, deepspeed
from cosyflow.training.engine.operators import operator_folder
operator_folder()  # an operator takes a minute to compile, so all tests have one
stage, folder = int(sys.argv[1]), sys.argv[2]
deepspeed.init_distributed(dist_backend="gloo")
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.LayerNorm(7), torch.nn.Linear(7, 3, bias=False))
model.register_buffer("seen", torch.ones(3))
config = {"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": True}, "zero_optimization": {"stage": stage},
          "optimizer": {"type": "AdamW", "params": {"lr": 0.01, "torch_adam": True}}}
engine = deepspeed.initialize(model=model, model_parameters=list(model.parameters()), config=config)[0]
engine.backward(engine(torch.randn(4, 5, dtype=torch.bfloat16)).float().pow(2).mean())
engine.step()
engine.save_checkpoint(folder, tag="epoch_0_whole", client_state={"epoch": 0, "step": 1, "loss_dict": {}})
if int(sys.argv[3]) == torch.distributed.get_rank():
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
    torch.distributed.barrier()
    torch.save(dict(get_fp32_state_dict_from_zero_checkpoint(folder)), folder + "/expected.pt")
else:
    torch.distributed.barrier()
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_what_deepspeed_itself_writes(tmp_path: Path, stage: int) -> None:
    """By two processes; compared with what DeepSpeed's own tool makes of it."""
    pytest.importorskip("deepspeed")
    (tmp_path / "training.py").write_text(TRAINING)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [*launch, str(tmp_path / "training.py"), str(stage), str(tmp_path / "out"), "0"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = read_tensors(tmp_path / "out" / "expected.pt")
    found = read_tensors(tmp_path / "out")
    assert expected.keys() <= found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].float(), value.float(), rtol=0, atol=0)
