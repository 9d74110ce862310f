"""Which checkpoint a run goes on from, and whether it may."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from cosyflow import storage
from cosyflow.checkpoint.folder import Checkpoint, checkpoint_at, list_checkpoints
from cosyflow.checkpoint.official import differences, shapes_of
from cosyflow.checkpoint.select import find_newest, nothing_to_continue
from cosyflow.checkpoint.state import Resumption, load
from cosyflow.config.training import TrainConf
from cosyflow.errors import CosyFlowError, Problem, RefusalError
from cosyflow.training.arguments import Arguments
from cosyflow.training.objective import TrainingData
from cosyflow.training.ranks import Ranks

Teller = Callable[[str], None]


def check_folder(arguments: Arguments, conf: TrainConf) -> None:
    """Looks at the names in the model's folder, quickly and before any work: may the run go on there?

    Raises:
        RefusalError: it would mix its checkpoints with others, shorten a training, or has nothing to go on from.
    """
    there = list_checkpoints(arguments.model_dir)
    if there:
        problem = _obstacle(arguments, conf, there)
        if problem is not None:
            raise RefusalError([problem])
    elif arguments.resume_from:
        begun = _checkpoint_at(arguments.resume_from).epoch + 1
        if begun >= conf.max_epoch:
            text = f"{arguments.resume_from} has {begun} epochs behind it, of {conf.max_epoch}; ask for more"
            raise RefusalError([Problem(f"{arguments.section}.max_epoch", text)])


def _obstacle(arguments: Arguments, conf: TrainConf, there: list[Checkpoint]) -> Problem | None:
    where = arguments.model_dir
    if arguments.resume == "none":
        text = f"{where} holds {there[-1].name} of an earlier run; take another model_dir, or resume auto"
        return Problem("resume", text)
    if not any(checkpoint.has_state for checkpoint in there):
        newest = there[-1]
        reason = f"{newest.name} cannot be continued: {storage.name(newest.state)} is not there"
        return nothing_to_continue(newest, reason)
    ours = [checkpoint for checkpoint in there if checkpoint.is_ours]
    begun = ours[-1].epoch + 1
    if begun > conf.max_epoch:
        tags = ", ".join(checkpoint.name for checkpoint in ours)
        text = (
            f"{conf.max_epoch} epochs are asked for, and {where} holds {begun} ({tags}); ask for {begun} or more, or"
            " take another model_dir"
        )
        return Problem(f"{arguments.section}.max_epoch", text)
    ahead = [c for c in there if not c.is_ours and c.is_whole_epoch and begun <= c.epoch < conf.max_epoch]
    if ahead:
        text = f"{ahead[0].weights}: another trainer wrote it, and it would be overwritten; move it to another folder"
        return Problem("model_dir", text)
    return None


def _checkpoint_at(uri: str) -> Checkpoint:
    """The checkpoint of a whole epoch whose weights are at a URI. Raises RefusalError when there is none."""
    found = checkpoint_at(uri)
    if found is None or not found.is_whole_epoch or not found.has_state:
        text = f"{uri}: not the checkpoint of a whole epoch with its state in the same folder; name an epoch_N_whole.pt"
        raise RefusalError([Problem("resume_from", text)])
    return found


def choose_resumption(arguments: Arguments, ranks: Ranks, tell: Teller) -> Resumption | None:
    """What the run goes on from, equal on every rank: the newest checkpoint of its folder, else --resume_from.

    None starts a new run.

    Raises:
        UnusableError: of --resume_from the state is not there, or files are damaged.
    """
    newest = share_newest(arguments.model_dir, ranks, tell)
    if newest is not None or not arguments.resume_from:
        return newest
    tell(f"takes weights, optimizer and position of {arguments.resume_from}")
    return load(_checkpoint_at(arguments.resume_from))


def share_newest(directory: str, ranks: Ranks, tell: Teller, whole_epochs: bool = False) -> Resumption | None:
    """What `find_newest` gives, which the first rank chooses for all."""
    found = find_newest(directory, tell, whole_epochs) if ranks.is_first else None
    chosen = ranks.share(lambda: found[0] if found else None)
    if chosen is None or found is not None:
        return found[1] if found else None
    return load(chosen, verify=False)


def fit_to_ranks(
    resumption: Resumption | None, data: TrainingData, directory: str, ranks: Ranks, tell: Teller
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
    told = f"{resumption.name}: {before} processes were within an epoch, and cannot be followed there by another number"
    whole = share_newest(directory, ranks, tell, whole_epochs=True)
    if whole is None:
        raise CosyFlowError(
            f"{told} ({ranks.world_size}), and no epoch is whole yet to go back to; start {before} processes, or start"
            f" from its weights (--checkpoint {storage.join(directory, resumption.name)}.pt with another --model_dir)"
        )
    tell(f"{told} ({ranks.world_size}): goes back to {whole.name}")
    return whole


def check_fits(model: nn.Module, resumption: Resumption) -> None:
    """Raises CosyFlowError when the weights of an interrupted run are not of the recipe's model any more."""
    wrong = differences(shapes_of(model.state_dict()), shapes_of(resumption.snapshot.weights))
    if wrong:
        raise CosyFlowError(
            f"{resumption.name}: is not of the recipe's model: {wrong[0]}; use that run's recipe or another --model_dir"
        )
