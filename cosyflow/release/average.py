"""Averages the weights of the best checkpoints of a training run (Izmailov et al. 2018, https://arxiv.org/abs/1803.05407).

A checkpoint is `NAME.pt` with `NAME.yaml` beside it: `epoch`, `step` and the validation loss, `loss_dict.loss`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.progress import Progress, say
from cosyflow.stage import StageResult
from cosyflow.training.checkpoints import PlainLoader

NOT_CHECKPOINTS = ("train", "init")
BOOKKEEPING = ("epoch", "step")


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights and what its yaml says of it. `loss` is the mean validation loss, infinite when not written."""

    uri: str
    epoch: int
    step: int
    loss: float


def list_checkpoints(directory: str) -> list[Checkpoint]:
    """All checkpoints of a folder that have both files, in the order of their steps.

    Raises:
        CosyFlowError: a yaml file is broken.
    """
    names = {file.path for file in storage.list_files(directory) if "/" not in file.path}
    found = []
    for name in sorted(names):
        stem = name.removesuffix(".yaml")
        if stem == name or name.startswith(NOT_CHECKPOINTS) or f"{stem}.pt" not in names:
            continue
        found.append(_read_checkpoint(directory, stem))
    return sorted(found, key=lambda checkpoint: (checkpoint.epoch, checkpoint.step))


def _read_checkpoint(directory: str, stem: str) -> Checkpoint:
    path = storage.join(directory, f"{stem}.yaml")
    try:
        values: Any = yaml.load(storage.read_text(path), Loader=PlainLoader)  # noqa: S506 - it is a SafeLoader
        loss = (values.get("loss_dict") or {}).get("loss", math.inf)
        epoch, step = int(values["epoch"]), int(values["step"])
        return Checkpoint(storage.join(directory, f"{stem}.pt"), epoch, step, float(loss))
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CosyFlowError(
            f"{path}: not the yaml of a checkpoint, which has epoch, step and loss_dict.loss"
        ) from error


def choose(checkpoints: Sequence[Checkpoint], num: int, val_best: bool) -> list[Checkpoint]:
    """The `num` checkpoints of the lowest validation loss, best first; without `val_best` the newest, newest first."""
    if val_best:
        ranked = sorted((c for c in checkpoints if math.isfinite(c.loss)), key=lambda c: (c.loss, -c.step))
    else:
        ranked = sorted(checkpoints, key=lambda c: (c.epoch, c.step), reverse=True)
    return ranked[:num]


def average_weights(uris: Sequence[str]) -> dict[str, torch.Tensor]:
    """The mean of each tensor, computed in float32 or wider and returned in the type that it is stored in.

    Raises:
        CosyFlowError: a file is no checkpoint, or two do not have the same keys and shapes.
    """
    total: dict[str, torch.Tensor] = {}
    types: dict[str, torch.dtype] = {}
    with Progress("average", len(uris), "checkpoints") as progress:
        for uri in uris:
            weights = _load_weights(uri)
            if not total:
                types = {key: tensor.dtype for key, tensor in weights.items()}
                total = {key: _widen(tensor) for key, tensor in weights.items()}
            else:
                _check_alike(total, weights, uri, uris[0])
                for key, tensor in weights.items():
                    total[key] += _widen(tensor)
            progress.update()
    return {key: _narrow(tensor / len(uris), types[key]) for key, tensor in total.items()}


def _load_weights(uri: str) -> dict[str, torch.Tensor]:
    try:
        with storage.open_read(uri) as stream:
            content = torch.load(stream, map_location="cpu", weights_only=True)
        return {key: value for key, value in content.items() if key not in BOOKKEEPING}
    except CosyFlowError:
        raise
    except Exception as error:  # torch.load raises many kinds for a file that is broken or holds other things
        raise CosyFlowError(f"{uri}: not a checkpoint of weights ({error})") from error


def _widen(tensor: torch.Tensor) -> torch.Tensor:
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
    there = [each for each in list_checkpoints(src_path) if among is None or storage.name(each.uri) in among]
    chosen = choose(there, num, val_best)
    if not chosen:
        wanted = "with a validation loss in its yaml " if val_best else ""
        raise CosyFlowError(f"{src_path}: no checkpoint (NAME.pt and NAME.yaml) {wanted}to average; train first")
    if len(chosen) < num:
        say("average", f"{len(chosen)} of the {num} checkpoints asked for are there: averages those")
    for checkpoint in chosen:
        say("average", f"takes {storage.name(checkpoint.uri)}, validation loss {checkpoint.loss:.4f}")
    weights = average_weights([checkpoint.uri for checkpoint in chosen])
    with storage.open_write(dst_model) as stream:
        torch.save(weights, stream)
    details = {
        "averaged": [storage.name(checkpoint.uri) for checkpoint in chosen],
        "losses": [checkpoint.loss for checkpoint in chosen],
    }
    return StageResult({"checkpoints": len(there), "averaged": len(chosen)}, [storage.name(dst_model)], details)
