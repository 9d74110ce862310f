"""A checkpoint of DeepSpeed: a folder of files, with the weights in one of them or spread over those of all ranks.

Below the folder given to DeepSpeed each checkpoint has a folder of its own, `global_step700` or the official trainer's
`epoch_0_whole`, and the file `latest` names the newest. One of those folders holds:

- `mp_rank_00_model_states.pt`: under `module` the weights in the type that they are trained in (ZeRO 0, 1 and 2);
- `zero_pp_rank_{R}_mp_rank_00_model_states.pt` of each rank R: names and shapes only, and buffers (ZeRO 3);
- `[bf16_]zero_pp_rank_{R}_mp_rank_00_optim_states.pt` of each rank R: its part of the float32 weights.

The float32 weights are taken where they are there. ZeRO 1 and 2 cut a group's flat vector into one part for each rank;
ZeRO 3 cuts every tensor by itself, each padded to a multiple of the ranks. `param_shapes` has names and shapes in the
order of the vector. Of pickled objects only those below are let in, and nothing of DeepSpeed is imported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosyflow.checkpoint.files import UnreadableError, read_file
from cosyflow.errors import CosyFlowError

LATEST = "latest"
WHOLE = "mp_rank_00_model_states.pt"
_FILE = re.compile(
    r"((bf16|fp16)_)?(zero_pp_rank_(?P<rank>\d+)_)?mp_rank_(?P<part>\d+)_(?P<kind>model|optim)_states\.pt"
)
_AGAIN = "copy the whole folder again"


class _Ignored:
    """Takes the place of an object that says nothing about weights, such as a loss scaler; keeps nothing of it."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


_STAND_INS = (
    (int, "deepspeed.runtime.zero.config.ZeroStageEnum"),
    (_Ignored, "deepspeed.runtime.fp16.loss_scaler.LossScaler"),
    (_Ignored, "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler"),
    (_Ignored, "deepspeed.utils.tensor_fragment.fragment_address"),
)
"""What is made of the objects that DeepSpeed pickles; any other one is refused."""


def checkpoint_folders(path: Path) -> list[Path]:
    """The checkpoints of DeepSpeed in a folder, by the numbers in their names; the folder itself if it is one."""
    if _files(path, "model"):
        return [path]
    return sorted((each for each in path.iterdir() if each.is_dir() and _files(each, "model")), key=_numbers)


def is_zero_folder(path: Path) -> bool:
    """Whether it is a checkpoint of DeepSpeed, or a folder of them: with the file `latest`, or with nothing else."""
    return path.is_dir() and (bool(_files(path, "model")) or (path / LATEST).is_file() or _holds_steps_alone(path))


def read_zero_folder(path: Path) -> tuple[dict[str, Tensor], str]:
    """The weights of a checkpoint of DeepSpeed, on the CPU, and its form in words.

    Args:
        path: the checkpoint's folder, or the one above with the file `latest`.

    Raises:
        CosyFlowError: files are missing, damaged, of a model that is split over ranks, or hold other objects.
    """
    folder = _chosen(path)
    models, optimizers = _files(folder, "model"), _files(folder, "optim")
    state = _read(models[0])
    described = f"a checkpoint of DeepSpeed, {folder.name}"
    shards = [_entry(_read(file), "optimizer_state_dict", Mapping, file) for file in optimizers]
    stage = shards[0].get("zero_stage") if shards else None
    if stage not in (1, 2, 3):
        return _whole(state, models[0]), described
    _check_ranks(folder, shards, optimizers, models, stage)
    if stage == 3:
        weights = _buffers(state, models[0]) | _frozen_of_all_ranks(models, state)
        weights |= dict(_cut_by_tensor(shards, optimizers, state, models[0]))
    else:
        weights = _whole(state, models[0]) | dict(_cut_by_vector(shards, optimizers, state, models[0]))
    shared = state.get("shared_params") or {}
    for alias, source in shared.items() if isinstance(shared, Mapping) else shared:
        if source in weights:
            weights[alias] = weights[source]
    return weights, f"{described}, float32 weights of ZeRO {stage} from {len(shards)} ranks"


def _chosen(path: Path) -> Path:
    """The checkpoint's folder: itself, the one that `latest` names, or the only one."""
    there = checkpoint_folders(path)
    if there == [path]:
        return path
    if (path / LATEST).is_file():
        newest = (path / LATEST).read_text(encoding="utf-8", errors="replace").strip()
        if found := [each for each in there if each.name == newest]:
            return found[0]
        raise CosyFlowError(f"{path / LATEST}: names {newest!r}, which is no checkpoint there; {_AGAIN}")
    if len(there) == 1:
        return there[0]
    names = ", ".join(each.name for each in there[-5:])
    raise CosyFlowError(f"{path}: {len(there)} checkpoints of DeepSpeed and no file {LATEST!r}; name one of {names}")


def _holds_steps_alone(path: Path) -> bool:
    folders = [each for each in path.iterdir() if each.is_dir() and not each.name.startswith(".")]
    return bool(folders) and checkpoint_folders(path) == sorted(folders, key=_numbers)


def _numbers(path: Path) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", path.name)], path.name


def _files(folder: Path, kind: str) -> list[Path]:
    """The files of a kind by rank; those of all ranks' models come before a whole one."""
    found = [(match, file) for file in folder.iterdir() if (match := _FILE.fullmatch(file.name))]
    chosen = [(match["rank"], int(match["part"]), file) for match, file in found if match["kind"] == kind]
    if any(part for _, part, _ in chosen):
        raise CosyFlowError(f"{folder}: the model is split over ranks (mp_rank_01), no CosyVoice is; merge it first")
    return [file for _, _, file in sorted((rank is None, int(rank or 0), file) for rank, _, file in chosen)]


def _read(file: Path) -> Mapping[str, Any]:
    content = read_file(file, mapped=True, stand_ins=_STAND_INS)
    if not isinstance(content, Mapping):
        raise UnreadableError(file, "checkpoint of DeepSpeed", f"it holds a {type(content).__name__}")
    return content


def _entry(content: Mapping[str, Any], key: str, kind: type, file: Path, default: Any = None) -> Any:
    """The value of a key, of the kind that it must have."""
    value = content.get(key)
    value = default if value is None else value
    if not isinstance(value, kind):
        raise UnreadableError(file, "checkpoint of DeepSpeed", f"{key} is a {type(value).__name__}")
    return value


def _whole(state: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    """The weights as the model's file has them."""
    module = dict(_entry(state, "module", Mapping, file))
    if file.name != WHOLE:
        raise CosyFlowError(
            f"{file.parent}: ZeRO 3 keeps the weights in zero_pp_rank_*_optim_states.pt, which are not there; {_AGAIN}"
        )
    return module


def _check_ranks(
    folder: Path, shards: Sequence[Mapping[str, Any]], files: Sequence[Path], models: Sequence[Path], stage: int
) -> None:
    counts = shards[0].get("partition_count")
    ranks = max(counts) if isinstance(counts, list) and counts else counts
    models_missing = stage == 3 and len(models) != len(files)
    if ranks != len(files) or models_missing:
        raise CosyFlowError(
            f"{folder}: written by {ranks} ranks, and {len(files)} files of optimizers and {len(models)} of models are"
            f" there; {_AGAIN}"
        )
    for shard, file in zip(shards, files, strict=True):
        if shard.get("zero_stage") != stage or shard.get("partition_count") != counts:
            raise CosyFlowError(f"{file}: is of another training than {files[0].name}; {_AGAIN}")


def _buffers(state: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    module = _entry(state, "module", Mapping, file)
    return {name: module[name] for name in _entry(state, "buffer_names", list, file, []) if name in module}


def _shapes(state: Mapping[str, Any], file: Path) -> list[Mapping[str, Sequence[int]]]:
    """Of each group of parameters: names and shapes, in the order of its vector."""
    groups: list[Mapping[str, Sequence[int]]] = _entry(state, "param_shapes", list, file)
    if not all(isinstance(group, Mapping) for group in groups):
        raise UnreadableError(file, "checkpoint of DeepSpeed", "param_shapes is no list of names and shapes")
    return groups


def _vectors(shard: Mapping[str, Any], key: str, file: Path) -> list[Tensor]:
    vectors: list[Tensor] = _entry(shard, key, list, file)
    if not vectors or not all(isinstance(vector, Tensor) and vector.dim() == 1 for vector in vectors):
        raise UnreadableError(file, "checkpoint of DeepSpeed", f"{key} is no list of vectors")
    return vectors


def _cut_by_vector(
    shards: Sequence[Mapping[str, Any]], files: Sequence[Path], state: Mapping[str, Any], file: Path
) -> Iterator[tuple[str, Tensor]]:
    """ZeRO 1 and 2: the parts of a group, one after the other, are its vector; what remains of it is padding."""
    key = "single_partition_of_fp32_groups"
    parts = [_vectors(shard, key, each) for shard, each in zip(shards, files, strict=True)]
    groups = _shapes(state, file)
    if any(len(part) != len(groups) for part in parts):
        raise CosyFlowError(f"{file}: has {len(groups)} groups of parameters, the optimizers others; {_AGAIN}")
    for group, vectors in zip(groups, zip(*parts, strict=True), strict=True):
        vector, start = torch.cat(vectors), 0
        for name, shape in group.items():
            size = math.prod(shape)
            yield name, _shaped(vector[start : start + size], name, shape, file)
            start += size


def _cut_by_tensor(
    shards: Sequence[Mapping[str, Any]], files: Sequence[Path], state: Mapping[str, Any], file: Path
) -> Iterator[tuple[str, Tensor]]:
    """ZeRO 3: each rank has an equal part of every tensor, the last one's padded."""
    vectors = [torch.cat(_vectors(shard, "fp32_flat_groups", each)) for shard, each in zip(shards, files, strict=True)]
    start = 0
    for group in _shapes(state, file):
        for name, shape in group.items():
            size = math.prod(shape)
            share = -(-size // len(vectors))
            parts = [vector[start : start + share] for vector in vectors]
            yield name, _shaped(torch.cat(parts)[:size], name, shape, file)
            start += share


def _frozen_of_all_ranks(models: Sequence[Path], state: Mapping[str, Any]) -> dict[str, Tensor]:
    """ZeRO 3: weights that are not trained are cut in the same way, and lie in the models' files."""
    shapes = _entry(state, "frozen_param_shapes", Mapping, models[0], {})
    if not shapes:
        return {}
    fragments = [_entry(_read(file), "frozen_param_fragments", Mapping, file, {}) for file in models]
    if any(name not in each for name in shapes for each in fragments):
        raise CosyFlowError(f"{models[0].parent}: weights that are not trained are missing; {_AGAIN}")
    return {
        name: _shaped(
            torch.cat([each[name].flatten() for each in fragments])[: math.prod(shape)], name, shape, models[0]
        )
        for name, shape in shapes.items()
    }


def _shaped(values: Tensor, name: str, shape: Sequence[int], file: Path) -> Tensor:
    if values.numel() != math.prod(shape):
        raise CosyFlowError(f"{file.parent}: {name} {list(shape)} is longer than what the ranks saved; {_AGAIN}")
    return values.view(tuple(shape))
