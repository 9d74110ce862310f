"""Folders that hold the weights of one model, and refusals of those that hold something else, with the way.

A folder of Hugging Face has `model.safetensors` or `pytorch_model.bin`, or shards with an index that names the shard of
each tensor. Those of DeepSpeed are in `cosyflow.checkpoint.zero_folder`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from cosyflow.checkpoint.files import read_file
from cosyflow.checkpoint.folder import RECORD, STATE, WEIGHTS
from cosyflow.checkpoint.forms import unwrap
from cosyflow.checkpoint.zero_folder import is_zero_folder, read_zero_folder
from cosyflow.errors import CosyFlowError

_WHOLE = ("model.safetensors", "pytorch_model.bin")
_INDEX = ".index.json"
_MARKS = {
    "adapter_config.json": "an adapter of PEFT, which changes another model; merge it into that model first",
    ".metadata": "a distributed checkpoint of PyTorch; make one file of it with python -m"
    " torch.distributed.checkpoint.format_utils dcp_to_torch",
}
"""Files that only folders of a form have that is not read."""


def read_folder(path: Path) -> tuple[dict[str, Tensor], str]:
    """The weights in a folder, and its form in words.

    Raises:
        CosyFlowError: it has no weights of one model, or they are incomplete or damaged; names form and way.
    """
    if is_zero_folder(path):
        content, described = read_zero_folder(path)
    elif _is_hugging_face(path):
        content, described = _read_hugging_face(path, _indexes(path))
    else:
        raise CosyFlowError(f"{path}: {what_folder(path)}")
    tensors, form = unwrap(content, path)
    return tensors, ", ".join(each for each in (described, form) if each)


def checkpoints_of(path: Path) -> list[Path]:
    """The path itself where it holds one model's weights; of any other folder the files and folders in it that do.

    States of trainings and speakers are left out, and so is the Qwen2 folder of a model directory.
    """
    if not path.is_dir() or is_zero_folder(path) or _is_hugging_face(path):
        return [path]
    others = (STATE, "spk2info.pt", "utt2embedding.pt", "spk2embedding.pt", "utt2speech_token.pt")
    files = [each for each in path.iterdir() if each.name.endswith((WEIGHTS, ".safetensors"))]
    return sorted(each for each in files if each.is_file() and not each.name.endswith(others)) or [path]


def _is_hugging_face(path: Path) -> bool:
    return bool(_indexes(path)) or any((path / name).is_file() for name in _WHOLE)


def what_folder(path: Path) -> str:
    """What a folder is that holds no weights of one model, and what to name instead."""
    for mark, described in _MARKS.items():
        if (path / mark).is_file():
            return described
    names = sorted(each.name for each in path.iterdir())
    trained = [name for name in names if name.endswith(WEIGHTS) and name.removesuffix(WEIGHTS) + RECORD in names]
    if trained:
        return f"a folder of a training with {len(trained)} checkpoints; name one of them, such as {trained[-1]}"
    weights = [name for name in names if name.endswith((WEIGHTS, ".safetensors"))]
    if {"llm.pt", "flow.pt"} & set(names):
        return f"a model directory with {', '.join(weights)}; name one of these files"
    if (path / "config.json").is_file():
        return f"a folder of Hugging Face without {' or '.join(_WHOLE)}; copy the whole folder"
    if weights:
        return f"is a folder; name a file of weights in it, such as {weights[0]}"
    return "is a folder without weights"


def _indexes(path: Path) -> list[Path]:
    return sorted(each for name in _WHOLE if (each := path / (name + _INDEX)).is_file())


def _read_hugging_face(path: Path, indexes: list[Path]) -> tuple[dict[str, Any], str]:
    whole = [path / name for name in _WHOLE if (path / name).is_file()]
    if whole:
        return _dictionary(whole[0]), f"a folder of Hugging Face with {whole[0].name}"
    places = _weight_map(indexes[0])
    tensors: dict[str, Any] = {}
    for name in sorted(set(places.values())):
        shard = _dictionary(path / name)
        wanted = [key for key, place in places.items() if place == name]
        missing = [key for key in wanted if key not in shard]
        if missing:
            raise CosyFlowError(f"{path / name}: {missing[0]} is missing, which {indexes[0].name} says is there")
        tensors |= {key: shard[key] for key in wanted}
    return tensors, f"a folder of Hugging Face with {len(set(places.values()))} shards"


def _weight_map(index: Path) -> dict[str, str]:
    """The shard of each tensor: a file next to the index."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if not places or not all(isinstance(name, str) and Path(name).name == name for name in places.values()):
            raise ValueError("weight_map does not name files next to it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CosyFlowError(f"{index}: not the index of shards ({reason}); copy the folder again") from error
    return dict(places)


def _dictionary(file: Path) -> dict[str, Any]:
    content = read_file(file, mapped=True)
    if not isinstance(content, dict):
        raise CosyFlowError(f"{file}: holds a {type(content).__name__}, a checkpoint is a dictionary of tensors")
    return content
