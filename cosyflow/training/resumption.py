"""Which checkpoint a run goes on from, and whether its model fits."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from cosyflow.checkpoint.official import differences, shapes_of
from cosyflow.checkpoint.select import find_newest
from cosyflow.checkpoint.state import Resumption, load
from cosyflow.errors import CosyFlowError
from cosyflow.training.arguments import Arguments
from cosyflow.training.folder import whole_epoch_at
from cosyflow.training.ranks import Ranks

Log = Callable[[str], None]


def choose_resumption(arguments: Arguments, ranks: Ranks, log: Log) -> Resumption | None:
    """What the run goes on from, equal on every rank: the newest checkpoint of its folder, else --resume_from.

    None starts a new run.

    Raises:
        UnusableError: of --resume_from the state is not there, or files are damaged.
    """
    newest = share_newest(arguments.model_dir, ranks, log)
    if newest is not None or not arguments.resume_from:
        return newest
    log(f"takes weights, optimizer and position of {arguments.resume_from}")
    return load(whole_epoch_at(arguments.resume_from))


def share_newest(directory: str, ranks: Ranks, log: Log) -> Resumption | None:
    """What `find_newest` gives, which the first rank chooses for all."""
    found = find_newest(directory, log) if ranks.is_first else None
    chosen = ranks.share(lambda: found[0] if found else None)
    if chosen is None or found is not None:
        return found[1] if found else None
    return load(chosen, verify=False)


def check_fits(model: nn.Module, resumption: Resumption) -> None:
    """Raises CosyFlowError when the weights of an interrupted run are not of the recipe's model any more."""
    wrong = differences(shapes_of(model.state_dict()), shapes_of(resumption.snapshot.weights))
    if wrong:
        raise CosyFlowError(
            f"{resumption.name}: is not of the recipe's model: {wrong[0]}; use that run's recipe or another --model_dir"
        )
