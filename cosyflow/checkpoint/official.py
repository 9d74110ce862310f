"""Checkpoint files in the official form: one flat dictionary of tensors, as `.pt` or `.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cosyflow.checkpoint.files import read_file, write_file
from cosyflow.checkpoint.folders import read_folder
from cosyflow.checkpoint.forms import unwrap
from cosyflow.errors import CosyFlowError
from cosyflow.families.recognition import GENERATOR, identify

_SHOWN = 5

TEXT_TABLE, TIED_HEAD = "llm.model.model.embed_tokens.weight", "llm.model.lm_head.weight"
"""One tensor by two names, in a language model on Qwen2."""
_WEIGHT_NORM = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}
"""Old and new name of a weight-normalised layer's gain and direction."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a checkpoint's tensors onto the CPU, in whatever form of `cosyflow.checkpoint.forms` they are.

    Raises:
        CosyFlowError: the file is absent, damaged or holds something else than tensors.
    """
    return read_form(path)[0]


def read_form(path: Path) -> tuple[dict[str, Tensor], str]:
    """As `read_tensors`, with the file's form in words, "" for a bare state dict (`cosyflow.checkpoint.forms`)."""
    if path.is_dir():
        return read_folder(path)
    return unwrap(read_file(path, mapped=True), path)


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in tensors.items()}


def differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What does not fit, a line for each key: missing, not expected, or of another shape."""
    lines = []
    for key, shape in expected.items():
        if key not in found:
            lines.append(f"{key} {list(shape)} is missing")
        elif found[key] != shape:
            lines.append(f"{key} is {list(found[key])}, expected {list(shape)}")
    lines += [f"{key} {list(shape)} is not expected" for key, shape in found.items() if key not in expected]
    return lines


def load_official(model: nn.Module, path: Path) -> None:
    """Loads a checkpoint into a model; every key must be there with its shape, and no other.

    A vocoder may come with the prefix `generator.` and with discriminators, which are left out when the model has none,
    and with either form of weight-norm keys.

    Raises:
        CosyFlowError: names the first keys that do not fit and what the file seems to be.
    """
    own = model.state_dict()
    tensors = fit_names(read_tensors(path), own)
    wrong = differences(shapes_of(own), shapes_of(tensors))
    if wrong:
        rest = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise CosyFlowError(
            f"{path}: does not fit the model: {'; '.join(wrong[:_SHOWN])}{rest};"
            f" the file seems to be {identify(shapes_of(tensors))}, the model is {identify(shapes_of(own))}"
        )
    _check_ties(own, tensors, path)
    model.load_state_dict(tensors, strict=True)


def fit_names(tensors: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file under the names that a model with the state dict `own` uses for them.

    A vocoder's are taken out of its training file, weight norm is renamed from either form to the model's, and an
    output layer that shares the text table, which many files leave out, is that table.
    """
    if any(key.startswith(GENERATOR) for key in tensors) and not any(key.startswith(GENERATOR) for key in own):
        tensors = {key.removeprefix(GENERATOR): tensors[key] for key in tensors if key.startswith(GENERATOR)}
    if TIED_HEAD in own and TIED_HEAD not in tensors and TEXT_TABLE in tensors:
        tensors = {**tensors, TIED_HEAD: tensors[TEXT_TABLE]}
    renamed = {}
    for key, value in tensors.items():
        other = _other_weight_norm(key)
        renamed[other if key not in own and other in own else key] = value
    return renamed


def _other_weight_norm(key: str) -> str:
    """The same key in the other form of weight norm."""
    for older, newer in _WEIGHT_NORM.items():
        if key.endswith(f".{newer}"):
            return key.removesuffix(newer) + older
        if key.endswith(f".{older}"):
            return key.removesuffix(older) + newer
    return key


def _check_ties(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Tensors that the model shares must be equal in the file, or loading would silently drop one."""
    first: dict[object, str] = {}
    for key, value in own.items():
        other = first.setdefault(_memory(value), key)
        if other != key and not torch.equal(tensors[other], tensors[key]):
            raise CosyFlowError(f"{path}: {other} and {key} must be equal, the model shares one tensor between them")


def save_official(model: nn.Module, path: Path) -> None:
    """Writes the model's state dict, exactly the official keys, to a `.pt` file that is whole or not there."""
    on_cpu: dict[object, Tensor] = {}
    for value in model.state_dict().values():
        if _memory(value) not in on_cpu:
            on_cpu[_memory(value)] = value.detach().cpu()
    # a shared tensor stays shared in the file
    write_file({key: on_cpu[_memory(value)] for key, value in model.state_dict().items()}, str(path))


def _memory(tensor: Tensor) -> object:
    """Equal for tensors that are one and the same, under whatever names."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype
