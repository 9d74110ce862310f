"""What an engine cannot do, found before any process of a training is started, and without PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosyflow import storage
from cosyflow.config.deepspeed import SETTING, DeepSpeedSettings, config_place, line_numbers, overruled, parse
from cosyflow.config.training import GanTrainConf, TrainConf
from cosyflow.errors import CosyFlowError, Problem, RefusalError
from cosyflow.families import part

if TYPE_CHECKING:
    from cosyflow.config.options import TrainingOptions

DEEPSPEED = "deepspeed"


@dataclass(frozen=True)
class Recipe:
    """How the recipe says that a part is trained: `conf`, from the `section` of `file`."""

    conf: TrainConf
    section: str
    file: str


def engine_problems(options: TrainingOptions) -> Iterator[Problem]:
    """What is wrong with the chosen engine, whatever the recipe says."""
    if options.train_engine != DEEPSPEED:
        return
    if part(options.model).takes_turns:
        text = (
            f"deepspeed trains one model by one optimizer, and {options.model} is two, in turns on one batch; give"
            " torch_ddp"
        )
        yield Problem("train_engine", text)
    try:
        read_settings(options)
    except RefusalError as refusal:
        yield from refusal.problems


def recipe_problems(options: TrainingOptions, recipe: Recipe) -> Iterator[Problem]:
    """What does not go with the recipe; what is only overruled by it is a warning, unless `strict` is asked for."""
    if options.train_engine != DEEPSPEED or isinstance(recipe.conf, GanTrainConf):
        return
    try:
        settings = read_settings(options)
    except RefusalError:
        return  # see engine_problems
    if recipe.conf.compile:
        text = "does not go with train_engine deepspeed; leave it out, or give torch_ddp"
        yield Problem(f"{recipe.section}.compile", text)
    unread = part(options.model).unread.get(recipe.section, ())
    (budget,) = (name for name in ("tokens_per_step", "frames_per_step") if name not in unread)
    for line in overruled(settings, recipe.conf, recipe.section, budget, recipe.file, _lines(recipe.file)):
        remedy = '; say "auto" there, or change the recipe' if options.strict else ""
        yield Problem(SETTING, line + remedy, is_warning=not options.strict)


def share_problems(conf: TrainConf, section: str, processes: int) -> Iterator[Problem]:
    """What is wrong with the number of processes that share out the batches of an update."""
    batches, setting = conf.accum_grad, f"{section}.accum_grad"
    if batches < processes:
        text = (
            f"an update has {batches} batches for {processes} processes; give {processes} or a multiple of it (each"
            " batch that is added makes an update larger), or start fewer processes"
        )
        yield Problem(setting, text)
    elif over := batches % processes:
        text = (
            f"of the {processes} processes {processes - over} wait for the others in every update, which has {batches}"
            " batches; a multiple of the number of processes keeps all at work"
        )
        yield Problem(setting, text, is_warning=True)


def read_settings(options: TrainingOptions) -> DeepSpeedSettings:
    """DeepSpeed's settings. Raises RefusalError when the file is not there, or is not what it should be."""
    place = config_place(options.deepspeed_config)
    try:
        if not storage.exists(place):
            raise RefusalError([Problem(SETTING, f"{options.deepspeed_config}: no such file; name one that is there")])
        return parse(storage.read_text(place), options.deepspeed_config)
    except UnicodeDecodeError as error:
        text = f"{options.deepspeed_config}: not UTF-8 at byte {error.start}; save it as UTF-8"
        raise RefusalError([Problem(SETTING, text)]) from error


def refuse_if_not_installed() -> None:
    """Raises RefusalError where DeepSpeed is not installed; only who trains needs it."""
    if importlib.util.find_spec(DEEPSPEED) is None:
        text = "deepspeed: is not installed; install cosyflow[deepspeed], or give torch_ddp"
        raise RefusalError([Problem("train_engine", text)])


def _lines(file: str) -> dict[tuple[str, ...], int]:
    try:
        return line_numbers(storage.read_text(file)) if file and storage.exists(file) else {}
    except (CosyFlowError, UnicodeDecodeError):
        return {}  # the lines are for a message alone
