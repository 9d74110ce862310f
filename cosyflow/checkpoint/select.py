"""Which checkpoints of a folder are taken: the newest, the best, or the newest that a run can go on from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from cosyflow.checkpoint.folder import Checkpoint, list_checkpoints, nothing_to_continue
from cosyflow.checkpoint.state import Resumption, UnusableError, load
from cosyflow.errors import RefusalError

Log = Callable[[str], None]


def newest(checkpoints: Sequence[Checkpoint], num: int) -> list[Checkpoint]:
    """The last `num` of the checkpoints of a list, the newest first."""
    return list(reversed(checkpoints))[:num]


def best(checkpoints: Iterable[Checkpoint], num: int) -> list[Checkpoint]:
    """The `num` checkpoints of the lowest validation loss, best first; of equal ones the newer is better."""
    judged = [(each.validation_loss, -each.update, each) for each in checkpoints if each.validation_loss is not None]
    ranked = sorted((entry for entry in judged if math.isfinite(entry[0])), key=lambda entry: entry[:2])
    return [checkpoint for _, _, checkpoint in ranked[:num]]


def find_newest(directory: str, log: Log) -> tuple[Checkpoint, Resumption] | None:
    """The newest checkpoint that a run can go on from; None when the folder holds none at all.

    Args:
        log: is given, in one line, why newer ones are passed over.

    Raises:
        RefusalError: checkpoints are there, and a run can go on from none of them.
    """
    there = list(reversed(list_checkpoints(directory)))
    passed: list[str] = []
    for checkpoint in there:
        try:
            resumption = load(checkpoint)
        except UnusableError as error:
            passed.append(f"{checkpoint.name} cannot be continued: {error}")
            continue
        if passed:
            more = f" (and {len(passed) - 1} more)" if len(passed) > 1 else ""
            log(f"{passed[0]}{more}; takes {checkpoint.name} instead")
        return checkpoint, resumption
    if there:
        raise RefusalError([nothing_to_continue(there[0], passed[0])])
    return None
