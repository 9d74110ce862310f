"""Averages the weights of the best checkpoints of a training run (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407).

A checkpoint is `NAME.pt`, and `NAME.yaml` in the same folder: `epoch`, `step` and the validation loss,
`loss_dict.loss`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from cosyflow import storage
from cosyflow.checkpoint.files import write_file
from cosyflow.checkpoint.folder import RECORD, Checkpoint, list_checkpoints
from cosyflow.checkpoint.official import read_tensors
from cosyflow.checkpoint.select import best, newest
from cosyflow.errors import CosyFlowError
from cosyflow.progress import Progress, say
from cosyflow.stage import StageResult
from cosyflow.unexpected import reading


def average_weights(uris: Sequence[str]) -> dict[str, torch.Tensor]:
    """The mean of each tensor, computed in float32 or wider and returned in the type that it is stored in.

    Raises:
        CosyFlowError: a file is no checkpoint, or two do not have the same keys and shapes.
    """
    total: dict[str, torch.Tensor] = {}
    types: dict[str, torch.dtype] = {}
    with Progress("average", len(uris), "checkpoints") as progress:
        for uri in uris:
            with storage.local_copy(uri) as path, reading(uri, "a checkpoint that can be averaged"):
                weights = read_tensors(path)
                if not total:
                    types = {key: tensor.dtype for key, tensor in weights.items()}
                    total = {key: _widen(tensor) for key, tensor in weights.items()}
                else:
                    _check_alike(total, weights, uri, uris[0])
                    for key, tensor in weights.items():
                        total[key] += _widen(tensor)
            progress.update()
    return {key: _narrow(tensor / len(uris), types[key]) for key, tensor in total.items()}


def _widen(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_complex():
        raise ValueError("its numbers are complex")
    return tensor.to(torch.float64 if tensor.dtype in (torch.float64, torch.int64) else torch.float32, copy=True)


def _narrow(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if dtype.is_floating_point else tensor.round().to(dtype)


def _check_alike(first: dict[str, torch.Tensor], other: dict[str, torch.Tensor], uri: str, first_uri: str) -> None:
    odd = sorted(first.keys() ^ other.keys())
    if odd:
        raise CosyFlowError(
            f"{uri}: the key {odd[0]} is not in both this and {first_uri}; they are of different models"
        )
    for key, tensor in other.items():
        if tensor.shape != first[key].shape:
            shapes = f"{tuple(tensor.shape)}, but {tuple(first[key].shape)} in {first_uri}"
            raise CosyFlowError(f"{uri}: {key} has the shape {shapes}")


def average_model(
    src_path: str, dst_model: str, num: int, val_best: bool, among: Collection[str] | None = None
) -> StageResult:
    """Averages the checkpoints below `src_path` into the file `dst_model`.

    Args:
        src_path: folder of a training run.
        dst_model: the file to write: a state dict without bookkeeping entries.
        num: how many checkpoints; where there are fewer, all are taken and a line says so.
        val_best: choose by validation loss; otherwise the newest.
        among: names of files that may be chosen, where the folder may hold more; by default all.

    Raises:
        CosyFlowError: there is no checkpoint to average, or they do not fit each other.
    """
    if num < 1:
        raise CosyFlowError(f"num: {num} checkpoints cannot be averaged, at least 1 is needed")
    every = list_checkpoints(src_path, any_name=True)
    there = [each for each in every if among is None or storage.name(each.weights) in among]
    for checkpoint in there:
        _check_record(checkpoint)
    chosen = best(there, num) if val_best else newest(there, num)
    if not chosen:
        wanted = "with a validation loss in its yaml " if val_best else ""
        forms = "NAME.pt, NAME.safetensors or a folder NAME of DeepSpeed, and NAME.yaml"
        raise CosyFlowError(f"{src_path}: no checkpoint ({forms}) {wanted}to average; train first")
    if len(chosen) < num:
        say("average", f"{len(chosen)} of the {num} checkpoints asked for are there: averages those")
    for checkpoint in chosen:
        loss = checkpoint.validation_loss
        shown = "" if loss is None else f", validation loss {loss:.4f}"
        say("average", f"takes {checkpoint.name}.pt{shown}")
    write_file(average_weights([checkpoint.weights for checkpoint in chosen]), dst_model)
    details = {
        "averaged": [storage.name(checkpoint.weights) for checkpoint in chosen],
        "losses": [checkpoint.validation_loss for checkpoint in chosen],
    }
    return StageResult({"checkpoints": len(there), "averaged": len(chosen)}, [storage.name(dst_model)], details)


def _check_record(checkpoint: Checkpoint) -> None:
    """A yaml that cannot be read would leave its checkpoint out of the choice in silence."""
    losses = checkpoint.record.get("loss_dict") or {}
    unread = isinstance(losses, dict) and "loss" in losses and checkpoint.validation_loss is None
    if not checkpoint.record or unread or not isinstance(losses, dict):
        path = storage.join(checkpoint.directory, checkpoint.name + RECORD)
        raise CosyFlowError(f"{path}: not the yaml of a checkpoint, which has epoch, step and loss_dict.loss")
