"""How the processes of a job train together: the engines that `--train_engine` chooses from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosyflow.training.engine.base import Engine
    from cosyflow.training.setup import Setup


def _torch_ddp(setup: Setup) -> Engine:
    from cosyflow.training.engine.ddp import TorchDDP  # torch is for the processes of a training alone

    return TorchDDP(setup.ranks)


def _deepspeed(setup: Setup) -> Engine:
    from cosyflow.training.engine.deepspeed import DeepSpeed
    from cosyflow.training.engine.problems import Recipe, read_settings, recipe_problems

    arguments = setup.arguments
    for problem in recipe_problems(arguments, Recipe(setup.conf, arguments.section, arguments.config)):
        setup.log(str(problem))
    settings = read_settings(arguments).for_deepspeed
    return DeepSpeed(setup.ranks, settings, arguments.deepspeed_save_states != "model_only", setup.log)


ENGINES: Mapping[str, Callable[[Setup], Engine]] = {"torch_ddp": _torch_ddp, "deepspeed": _deepspeed}
"""What makes each engine, for this process among the others."""
