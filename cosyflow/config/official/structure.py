"""What stands where in an official file: mappings, calls and lists, whose leaves say what becomes of a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cosyflow.config.official.hyperyaml import Call

REQUIRED = object()
"""In place of a default: official files have the value."""

Look = Callable[[str], Any]
"""The value at a dotted key, of an official file or of one of our recipes; None where there is none."""


@dataclass(frozen=True)
class Setting:
    """A value that our recipes have under one or more dotted keys."""

    keys: tuple[str, ...]
    default: Any = REQUIRED
    """What the official code takes where the file says nothing."""


@dataclass(frozen=True)
class Fixed:
    """A value that is always this one in CosyFlow."""

    value: Any


@dataclass(frozen=True)
class Unused:
    """A value that CosyFlow has no use for."""

    value: Any
    """What is written."""
    reason: str = ""
    """What is said of a value in a file; "" when nothing need be said."""


@dataclass(frozen=True)
class Derived:
    """A value that is not ours as it stands."""

    keys: tuple[str, ...]
    read: Callable[[Any, Look], Any]
    """Our value of the official one and of others in the file."""
    write: Callable[[Look], Any]
    """The official value of what our recipe has."""
    optional: bool = False
    """Official files may leave it out, and `read` takes None for it."""


def setting(*keys: str, default: Any = REQUIRED) -> Setting:
    return Setting(keys, default)


def settings(prefix: str, *names: str) -> dict[str, Any]:
    """Values that have the same names in our recipes, below `prefix`."""
    return {name: Setting((f"{prefix}.{name}",)) for name in names}


def new(name: str, **given: Any) -> Call:
    return Call("new", name, given)


def name(of: str, /, **given: Any) -> Call:
    return Call("name", of, given)


def apply(of: str, *given: Any) -> Call:
    return Call("apply", of, list(given))


Tree = Mapping[str, Any]
