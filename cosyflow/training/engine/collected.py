"""Weights and optimizer that ZeRO has shared out among the ranks: collected whole on one, and put back on all.

One weight is collected at a time, and the first rank alone keeps it, on the host. The form is that of torch, so that it
does not show which engine wrote a checkpoint, nor how many ranks there were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What Adam keeps of every weight, in its shape."""


def whole_weights(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """The model's state dict on the host; empty on a rank that is not to keep it."""
    found: dict[str, Tensor] = {}
    for weight, names in _weights(model):
        with _gathered(weight):
            if keep:
                copy = weight.detach().to("cpu", copy=True)
                found.update(dict.fromkeys(names, copy))  # a shared weight stays shared
    if not keep:
        return {}
    return {
        name: found[name] if name in found else value.detach().to("cpu", copy=True)
        for name, value in model.state_dict().items()
    }


def put_weights(model: nn.Module, state: Mapping[str, Tensor], zero: Any) -> None:
    """Puts a state dict, which every rank has, into the model and into ZeRO's own copy of its weights."""
    weights = list(_weights(model))
    for weight, names in weights:
        with _gathered(weight, writing=True), torch.no_grad():
            weight.copy_(state[names[0]])
    known = {name for _, names in weights for name in names}
    buffers = dict(model.named_buffers())
    with torch.no_grad():
        for name in state.keys() - known:
            buffers[name].copy_(state[name])
    if zero is not None:
        zero.refresh_fp32_params()


def whole_optimizer(
    optimizer: torch.optim.Optimizer, weights: Sequence[Tensor], groups: Sequence[Mapping[str, Any]], keep: bool
) -> dict[str, Any]:
    """The state dict that torch's Adam has of whole weights, on the host; empty on a rank that is not to keep it.

    Args:
        weights: those that are trained, in the order of the optimizer.
        groups: of the state dict; their learning rate is what the optimizer has now.
    """
    from deepspeed.utils import safe_get_full_optimizer_state

    steps = [state["step"] for state in optimizer.state.values() if state]
    states: dict[int, dict[str, Any]] = {}
    for place, weight in enumerate(weights if steps else ()):
        moments = {}
        for name in MOMENTS:
            value = (
                safe_get_full_optimizer_state(weight, name) if _is_shared_out(weight) else optimizer.state[weight][name]
            )
            if keep:
                moments[name] = value.detach().to("cpu", copy=True).view(_shape(weight))
        if keep:
            states[place] = {"step": torch.as_tensor(steps[0], dtype=torch.float32).cpu().clone(), **moments}
    if not keep:
        return {}
    rate = optimizer.param_groups[0]["lr"]
    return {"state": states, "param_groups": [{**group, "lr": rate} for group in groups]}


def put_optimizer(
    optimizer: torch.optim.Optimizer, weights: Sequence[Tensor], state: Mapping[str, Any], zero: Any
) -> None:
    """Gives an optimizer that has not stepped yet the state that torch saved, which every rank has."""
    moments = state["state"]
    if not moments:
        return
    if zero is None:
        optimizer.load_state_dict(dict(state))
        return
    parts = _parts(zero)
    for part in parts:  # what the first step would make
        optimizer.state[part] = {
            "step": torch.as_tensor(moments[0]["step"], dtype=torch.float32).to(part.device).clone(),
            **{name: torch.zeros_like(part) for name in MOMENTS},
        }
    _link(zero)
    for place, weight in enumerate(weights):
        for name in MOMENTS:
            _put_moment(weight, moments[place][name], name)


def _put_moment(weight: Any, value: Tensor, name: str) -> None:
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    if not hasattr(weight, "ds_tensor"):
        safe_set_full_optimizer_state(weight, value, name)
        return
    size, rank = weight.ds_tensor.numel(), torch.distributed.get_rank()
    share = value.flatten()[size * rank : size * (rank + 1)]
    # the last rank's share may end before its room does
    safe_set_local_optimizer_state(weight, nn.functional.pad(share, (0, size - share.numel())), name)


def _parts(zero: Any) -> list[Tensor]:
    """The flat tensors of this rank that the optimizer steps on."""
    flat = getattr(zero, "single_partition_of_fp32_groups", None)
    return list(zero.fp32_partitioned_groups_flat if flat is None else flat)


def _link(zero: Any) -> None:
    """Shows ZeRO 1 and 2 the optimizer's state, which they look for after their first step."""
    if hasattr(zero, "_lazy_init_hp_params_optimizer_state"):
        zero._lazy_init_hp_params_optimizer_state()


def _weights(model: nn.Module) -> Iterator[tuple[Any, list[str]]]:
    """Each weight with all the names that it has."""
    names: dict[int, list[str]] = {}
    weights: dict[int, nn.Parameter] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        weights[id(weight)] = weight
        names.setdefault(id(weight), []).append(name)
    yield from ((weights[key], names[key]) for key in names)


def _gathered(weight: Any, writing: bool = False) -> AbstractContextManager[Any]:
    """Has a weight whole on every rank meanwhile; with `writing` what the first one makes of it stays."""
    if not hasattr(weight, "ds_id"):
        return nullcontext()
    from deepspeed.runtime.zero import GatheredParameters

    context: AbstractContextManager[Any] = GatheredParameters([weight], modifier_rank=0 if writing else None)
    return context


def _is_shared_out(weight: Any) -> bool:
    return hasattr(weight, "ds_id") or hasattr(weight, "_hp_mapping")


def _shape(weight: Any) -> torch.Size:
    return torch.Size(getattr(weight, "ds_shape", weight.shape))
