"""Which checkpoint a run goes on from, and whether its model fits."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from cosyflow import storage
from cosyflow.checkpoint.official import differences, shapes_of
from cosyflow.checkpoint.select import find_newest
from cosyflow.checkpoint.state import Resumption, load
from cosyflow.errors import CosyFlowError
from cosyflow.training.arguments import Arguments
from cosyflow.training.folder import whole_epoch_at
from cosyflow.training.objective import TrainingData
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


def share_newest(directory: str, ranks: Ranks, log: Log, whole_epochs: bool = False) -> Resumption | None:
    """What `find_newest` gives, which the first rank chooses for all."""
    found = find_newest(directory, log, whole_epochs) if ranks.is_first else None
    chosen = ranks.share(lambda: found[0] if found else None)
    if chosen is None or found is not None:
        return found[1] if found else None
    return load(chosen, verify=False)


def fit_to_ranks(
    resumption: Resumption | None, data: TrainingData, directory: str, ranks: Ranks, log: Log
) -> Resumption | None:
    """The resumption; when it is within an epoch of another number of ranks, that of the newest whole epoch.

    Each rank has its own batches, so within an epoch nobody else can go on with them. Data that differ in anything else
    are left for the loop to refuse.

    Raises:
        CosyFlowError: there is no whole epoch to go back to.
    """
    if resumption is None or not resumption.position.batch:
        return resumption
    epoch, before = resumption.position.epoch, resumption.world_size
    if before in (None, ranks.world_size) or resumption.fingerprint != data.fingerprint(epoch, before):
        return resumption
    reason = (
        f"{resumption.name}: {before} processes were within an epoch, and cannot be followed there by another number"
    )
    whole = share_newest(directory, ranks, log, whole_epochs=True)
    if whole is None:
        raise CosyFlowError(
            f"{reason} ({ranks.world_size}), and no epoch is whole yet to go back to; start {before} processes,"
            f" or start from its weights (--checkpoint {storage.join(directory, resumption.name)}.pt with another"
            " --model_dir)"
        )
    log(f"{reason} ({ranks.world_size}): goes back to {whole.name}")
    return whole


def check_fits(model: nn.Module, resumption: Resumption) -> None:
    """Raises CosyFlowError when the weights of an interrupted run are not of the recipe's model any more."""
    wrong = differences(shapes_of(model.state_dict()), shapes_of(resumption.snapshot.weights))
    if wrong:
        raise CosyFlowError(
            f"{resumption.name}: is not of the recipe's model: {wrong[0]}; use that run's recipe or another --model_dir"
        )
