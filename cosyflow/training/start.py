"""What a run starts from: an interrupted run's checkpoint, official weights, or a Qwen2 folder."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.models.checkpoint import differences, load_official, shapes_of
from cosyflow.models.llm.pretrained import load_qwen2_folder
from cosyflow.models.llm.speech_lm import SpeechLM
from cosyflow.training.arguments import Arguments
from cosyflow.training.checkpoints import Checkpoint, Resumption, find_newest, list_checkpoints


def find_checkpoint(arguments: Arguments) -> Checkpoint | None:
    """The checkpoint to go on from; None starts a new run.

    Raises:
        CosyFlowError: a new run is asked for in a folder that holds checkpoints, which it would mix with its own.
    """
    if arguments.resume == "auto":
        return find_newest(arguments.model_dir)
    there = list_checkpoints(arguments.model_dir)
    if there:
        raise CosyFlowError(
            f"{arguments.model_dir}: holds {there[-1].tag} of an earlier run; take another --model_dir or --resume auto"
        )
    return None


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
