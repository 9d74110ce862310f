"""What a run starts from: an interrupted run's checkpoint, official weights, or a Qwen2 folder."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from cosyflow import storage
from cosyflow.config.training import TrainConf
from cosyflow.errors import CosyFlowError, Problem, RefusalError
from cosyflow.models.checkpoint import differences, load_official, shapes_of
from cosyflow.models.llm.pretrained import load_qwen2_folder
from cosyflow.models.llm.speech_lm import SpeechLM
from cosyflow.training.arguments import Arguments
from cosyflow.training.checkpoints import Checkpoint, list_checkpoints
from cosyflow.training.ranks import Ranks
from cosyflow.training.resumption import Resumption, load, nothing_to_continue, share_newest


def check_folder(arguments: Arguments, conf: TrainConf) -> None:
    """Tells from the names in the model's folder, quickly and before any work, whether the run may go on there.

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
        text = f"{where} holds {there[-1].tag} of an earlier run; take another model_dir, or resume auto"
        return Problem("resume", text)
    if not any(checkpoint.has_state for checkpoint in there):
        newest = there[-1]
        reason = f"{newest.tag} cannot be continued: {storage.name(newest.state)} is not there"
        return nothing_to_continue(newest, reason)
    ours = [checkpoint for checkpoint in there if checkpoint.is_ours]
    begun = ours[-1].epoch + 1
    if begun > conf.max_epoch:
        tags = ", ".join(checkpoint.tag for checkpoint in ours)
        text = (
            f"{conf.max_epoch} epochs are asked for, and {where} holds {begun} ({tags}); ask for {begun} or more, or"
            " take another model_dir"
        )
        return Problem(f"{arguments.section}.max_epoch", text)
    ahead = [c for c in there if not c.is_ours and c.is_whole_epoch and begun <= c.epoch < conf.max_epoch]
    if ahead:
        text = f"{ahead[0].weights}: another trainer wrote it, and it would be overwritten; move it away"
        return Problem("model_dir", text)
    return None


def _checkpoint_at(uri: str) -> Checkpoint:
    """The checkpoint of a whole epoch whose weights are at a URI. Raises RefusalError when there is none."""
    found = [each for each in list_checkpoints(storage.parent(uri)) if each.weights == storage.join(uri)]
    if not found or not found[0].is_whole_epoch or not found[0].has_state:
        text = f"{uri}: not the checkpoint of a whole epoch with its state beside it; name such an epoch_N_whole.pt"
        raise RefusalError([Problem("resume_from", text)])
    return found[0]


def choose_resumption(arguments: Arguments, ranks: Ranks, tell: Callable[[str], None]) -> Resumption | None:
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


def load_checkpoint(model: nn.Module, resumption: Resumption) -> None:
    """Loads the weights of an interrupted run. Raises CosyFlowError when the recipe's model is another one now."""
    wrong = differences(shapes_of(model.state_dict()), shapes_of(resumption.weights))
    if wrong:
        raise CosyFlowError(
            f"{resumption.tag}: is not of the recipe's model: {wrong[0]}; use that run's recipe or another --model_dir"
        )
    model.load_state_dict(resumption.weights)


def load_start(model: nn.Module, arguments: Arguments, tell: Callable[[str], None]) -> None:
    """Loads the weights that a new run starts from: the checkpoint, else the Qwen2 folder, else none."""
    if arguments.checkpoint:
        tell(f"starts from {arguments.checkpoint}")
        with storage.local_copy(arguments.checkpoint) as path:
            load_official(model, path)
    elif arguments.qwen_pretrain_path and isinstance(model, SpeechLM):
        tell(f"starts from {arguments.qwen_pretrain_path}; the speech parts begin at random")
        with storage.local_copy(arguments.qwen_pretrain_path) as path:
            load_qwen2_folder(model, path)
    else:
        tell("starts from random weights")
