"""One training at a time in a model's folder: the first rank holds its lease, and all ranks wait for it together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from cosyflow import storage
from cosyflow.lease import LOOK_SECONDS, Claim, Holder, Records, Wait, holding
from cosyflow.training.ranks import Ranks

NAME = "training"
OUR_FILES = ("epoch_", "metrics.jsonl", "result.json")
"""How the names of the files begin that the first rank writes; whoever started it may be writing others."""
TAKEN, WAITS, STOPPED = "taken", "waits", "stopped"


@contextmanager
def our_turn(
    model_dir: str, model: str, ranks: Ranks, is_stopped: Callable[[], bool], log: Callable[[str], None]
) -> Iterator[bool]:
    """Has the model's folder to itself in the `with` body, once no other training works there.

    In the body everything that the first rank writes below the folder is written only while the lease still holds.

    Args:
        model: the part that is trained.
        is_stopped: whether this rank was asked to end, which also ends the wait.
        log: is given who is waited for.

    Yields False when the run was asked to end before its turn came.

    Raises:
        OvertakenError: on the first rank, when it stood still for too long and another training has begun.
    """
    wait: Wait | None = None
    if ranks.is_first and storage.creates_once(model_dir):
        wait = Wait(Claim(Records(model_dir, NAME), Holder(f"training of the {model}")), log)

    def state() -> str:
        if is_stopped():
            return STOPPED
        return TAKEN if wait is None or wait.attempt() else WAITS

    with ExitStack() as stack:
        while True:  # in short requests, as the other ranks may not wait for hours in one
            states = ranks.gather(state())
            if STOPPED in states or WAITS not in states:
                break
            time.sleep(LOOK_SECONDS)
        if wait is not None and wait.lease is not None:
            stack.enter_context(holding(wait.lease))
            for begun in OUR_FILES:
                storage.remove_unfinished(model_dir, begun)
        yield STOPPED not in states
