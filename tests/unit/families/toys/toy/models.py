"""The model of the toy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn


def build_counter(recipe: Any) -> nn.Module:
    """int64 [T] -> scores [T, numbers] of what follows each."""
    config = recipe.counter
    return nn.Sequential(nn.Embedding(config.numbers, config.channels), nn.Linear(config.channels, config.numbers))


BUILDERS: Mapping[str, Callable[[Any], nn.Module]] = {"counter": build_counter}
