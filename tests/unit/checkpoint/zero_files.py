"""Writes checkpoint folders as DeepSpeed does, objects of its own included, without needing DeepSpeed."""

from __future__ import annotations

import enum
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class LossScaler:
    def __init__(self) -> None:
        self.cur_scale = 1.0


@contextmanager
def pickled_as(names: Mapping[str, type]) -> Iterator[None]:
    """Lets classes be pickled under other names; the modules of these names are not imported."""
    folders = [".".join(name.split(".")[:end]) for name in names for end in range(1, name.count(".") + 1)]
    before = {folder: sys.modules.get(folder) for folder in folders}
    sys.modules.update({folder: types.ModuleType(folder) for folder in folders})
    for name, thing in names.items():
        thing.__module__, _, thing.__qualname__ = name.rpartition(".")
        setattr(sys.modules[thing.__module__], thing.__qualname__, thing)
    try:
        yield
    finally:
        for folder, module in before.items():
            if module is None:
                del sys.modules[folder]
            else:
                sys.modules[folder] = module


def write_zero(folder: Path, state: Mapping[str, Tensor], stage: int, ranks: int, frozen: tuple[str, ...] = ()) -> None:
    """Writes what training of `state` in bfloat16 by that stage of ZeRO leaves; the last tensor is a buffer."""
    folder.mkdir(parents=True)
    *parameters, buffer = state
    trained = {name: state[name] for name in parameters if name not in frozen}
    model: dict[str, Any] = {
        "buffer_names": [buffer],
        "param_shapes": [OrderedDict((name, value.shape) for name, value in trained.items())],
        "frozen_param_shapes": OrderedDict((name, state[name].shape) for name in frozen),
        "shared_params": {},
        "global_steps": 3,
    }
    stage_enum = enum.IntEnum("ZeroStageEnum", {"optimizer_states": 1, "gradients": 2, "weights": 3})
    names = {
        "deepspeed.runtime.fp16.loss_scaler.LossScaler": LossScaler,
        "deepspeed.runtime.zero.config.ZeroStageEnum": stage_enum,
    }
    with pickled_as(names):
        for rank in range(ranks):
            parts = {name: _part(value, rank, ranks) for name, value in state.items()}
            optimizer = {"zero_stage": stage_enum(stage), "partition_count": ranks, "loss_scaler": LossScaler()}
            if stage == 3:
                optimizer["fp32_flat_groups"] = [torch.cat([parts[name] for name in trained])]
                empty = {name: value if name == buffer else torch.empty(0) for name, value in state.items()}
                fragments = {name: parts[name].bfloat16() for name in frozen}
                content = {**model, "module": empty, "frozen_param_fragments": fragments}
                torch.save(content, folder / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
            else:
                vector = torch.cat([value.flatten() for value in trained.values()])
                part = _part(vector, rank, ranks)
                real = max(0, min(len(part), vector.numel() - rank * len(part)))  # its padding is left out
                optimizer["single_partition_of_fp32_groups"] = [part[:real]]
                optimizer["partition_count"] = [ranks]
            file = f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"
            torch.save({"optimizer_state_dict": optimizer, "ds_version": "0.19.8"}, folder / file)
    if stage < 3:
        module = {name: value if name == buffer else value.bfloat16() for name, value in state.items()}
        torch.save({**model, "module": module}, folder / "mp_rank_00_model_states.pt")
    (folder.parent / "latest").write_text(folder.name)


def _part(value: Tensor, rank: int, ranks: int) -> Tensor:
    share = -(-value.numel() // ranks)
    padded = torch.cat([value.flatten(), torch.zeros(share * ranks - value.numel())])
    return padded[rank * share : (rank + 1) * share].clone()
