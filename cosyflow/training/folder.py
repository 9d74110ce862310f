"""Whether a run may go on in its model's folder, by the names there: who starts a training asks it without PyTorch."""

from __future__ import annotations

from cosyflow import storage
from cosyflow.checkpoint.folder import Checkpoint, checkpoint_at, list_checkpoints, nothing_to_continue
from cosyflow.config.training import TrainConf
from cosyflow.errors import Problem, RefusalError
from cosyflow.training.arguments import Arguments


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
        begun = whole_epoch_at(arguments.resume_from).epoch + 1
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


def whole_epoch_at(uri: str) -> Checkpoint:
    """The checkpoint of a whole epoch whose weights are at a URI. Raises RefusalError when there is none."""
    found = checkpoint_at(uri)
    if found is None or not found.is_whole_epoch or not found.has_state:
        text = f"{uri}: not the checkpoint of a whole epoch with its state in the same folder; name an epoch_N_whole.pt"
        raise RefusalError([Problem("resume_from", text)])
    return found
