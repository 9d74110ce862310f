"""What names a piece of work: a key of declared settings, the digests of its inputs, and the version of its code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

KEY_LENGTH = 16


def plain(settings: Any) -> dict[str, Any]:
    """A stage's settings (a dataclass) as JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return values


def key_of(stage: str, name: str, version: int, settings: Mapping[str, Any], inputs: Sequence[str]) -> str:
    """The key of a stage's outputs: equal exactly when all that is given is equal.

    Args:
        name: the subset or model.
        version: of the stage's code.
        settings: JSON values; the order of keys does not matter.
        inputs: digests of what goes in, in their order.
    """
    identity = json.dumps([stage, name, version, settings, list(inputs)], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(identity.encode()).hexdigest()[:KEY_LENGTH]


def differences(here: Mapping[str, Any], there: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The settings that differ, by dotted name with both values: "optim_conf.lr: 0.002, there 0.001"."""
    found = []
    for name in sorted({*here, *there}):
        one, other = here.get(name), there.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{prefix}{name}.")
        elif one != other:
            found.append(f"{prefix}{name}: {json.dumps(one)}, there {json.dumps(other)}")
    return found
