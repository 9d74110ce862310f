"""The forms in which people have weights: a state dict, also wrapped by a trainer or with a prefix on all its names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cosyflow.errors import CosyFlowError

WRAPPERS = ("module", "state_dict", "model_state_dict", "model")
"""Keys under which trainers keep the state dict: DeepSpeed, Lightning, and scripts of many people."""
PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""
BOOKKEEPING = ("epoch", "step")
"""Integers that the official trainer leaves among the tensors."""


def unwrap(content: Any, path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict in what a file holds, and its form in words; "" for a bare state dict.

    Raises:
        CosyFlowError: there is none; names what there is.
    """
    if not isinstance(content, Mapping):
        raise CosyFlowError(f"{path}: holds a {type(content).__name__}, a checkpoint is a dictionary of tensors")
    forms = []
    for wrapper in WRAPPERS:
        if _is_state_dict(content.get(wrapper)) and not _is_state_dict(content):
            others = len(content) - 1
            content = content[wrapper]
            forms.append(f"a state dict under the key {wrapper!r}" + (f", {others} other entries" if others else ""))
            break
    tensors = {key: value for key, value in content.items() if key not in BOOKKEEPING}
    for key, value in tensors.items():
        if not isinstance(key, str):
            raise CosyFlowError(f"{path}: has the key {key!r}, the tensors of a checkpoint have names")
        if not isinstance(value, Tensor):
            raise CosyFlowError(
                f"{path}: {key} is a {type(value).__name__}, a checkpoint holds tensors only, by themselves or under"
                f" one of the keys {', '.join(WRAPPERS)}"
            )
    for prefix in PREFIXES:
        if tensors and all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
            forms.append(f"the prefix {prefix!r} on every name")
    return tensors, ", ".join(forms)


def _is_state_dict(content: Any) -> bool:
    """Whether something is a dictionary with tensors alone, bookkeeping aside."""
    if not isinstance(content, Mapping):
        return False
    values = [value for key, value in content.items() if key not in BOOKKEEPING]
    return bool(values) and all(isinstance(value, Tensor) for value in values)
