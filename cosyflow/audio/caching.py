"""Filters and windows are computed once and kept; the kept tensors must serve with and without gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def ordinary_tensors(build: Callable[P, R]) -> Callable[P, R]:
    """Lets `build` make ordinary tensors even when it is first called within `torch.inference_mode`.

    A tensor made there could not be used where gradients are wanted later, as the mel loss of the vocoder does.
    """

    @wraps(build)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(False), torch.no_grad():
            return build(*args, **kwargs)

    return wrapper
