"""The summary of a finished run, from which the stage's manifest is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cosyflow import storage
from cosyflow.checkpoint.state import Position
from cosyflow.training.ranks import Ranks

RESULT_FILE = "result.json"


def write_result(
    model_dir: str, position: Position, ranks: Ranks, tokens_per_second: float, data: Mapping[str, Any]
) -> None:
    """Writes RESULT_FILE: the last checkpoint's name, how far the run went, and the losses of first and last epoch.

    Args:
        data: what was found of the data (`Setup.data_notes`).
    """
    first, last = (position.epochs[0], position.epochs[-1]) if position.epochs else ({}, {})
    result = {
        "checkpoint": position.name,
        "updates": position.update,
        "epochs": len(position.epochs),
        "world_size": ranks.world_size,
        "device": ranks.device.type,
        "first_epoch": first,
        "last_epoch": last,
        "tokens_per_second": round(tokens_per_second, 1),
        "seconds": round(position.seconds, 1),
        "data": dict(data),
    }
    storage.write_json(storage.join(model_dir, RESULT_FILE), result)
