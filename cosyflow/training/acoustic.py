"""What is trained and on what, for the flow and the vocoder of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from cosyflow import storage
from cosyflow.checkpoint.official import load_official, read_tensors
from cosyflow.config.recipe import Recipe
from cosyflow.config.training import TrainConf
from cosyflow.dataset.alignment import Alignment
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.models.flow.model import build_flow
from cosyflow.models.vocoder.gan import HiFiGan
from cosyflow.training.arguments import Arguments
from cosyflow.training.flow import FlowData, FlowMatchingObjective
from cosyflow.training.objective import Objective, TrainingData
from cosyflow.training.planned_data import LoaderSettings
from cosyflow.training.ranks import Ranks
from cosyflow.training.update import Updater, UpdateStrategy
from cosyflow.training.vocoder import AdversarialUpdater, VocoderObjective
from cosyflow.training.vocoder_data import VocoderData, usable_windows

Teller = Callable[[str], None]
DISCRIMINATOR = "discriminator."


@dataclass(frozen=True)
class Training:
    """A model that is to be trained."""

    conf: TrainConf
    objective: Objective
    data: TrainingData
    updater: UpdateStrategy


def usable(arguments: Arguments, recipe: Recipe, index: UtteranceIndex, tell: Teller) -> UtteranceIndex:
    """The utterances of an index that the model can be trained on."""
    if arguments.model == "flow":
        return index
    result = usable_windows(index, Alignment.of(recipe), recipe.train_conf_gan.window_frames)
    if result.dropped:
        tell(f"for the vocoder {result.describe()}")
    return result.index


def prepare(
    arguments: Arguments,
    recipe: Recipe,
    train: UtteranceIndex,
    validation: UtteranceIndex,
    load: Callable[[torch.nn.Module, TrainingData], None],
    compute_dtype: str,
    ranks: Ranks,
    loader: LoaderSettings,
) -> Training:
    """Builds the model with its weights, its data and what changes it.

    Args:
        train, validation: filtered indexes, equal on every rank.
        load: gives the model the weights that it starts from, or goes on from with these data.
    """
    if arguments.model == "flow":
        flow = build_flow(recipe.flow)
        flow_data = FlowData(train, validation, recipe, recipe.train_conf, ranks, loader)
        load(flow, flow_data)
        of_flow = FlowMatchingObjective(flow.to(ranks.device), compute_dtype)
        return Training(recipe.train_conf, of_flow, flow_data, Updater(of_flow, recipe.train_conf, ranks))
    gan = HiFiGan(recipe.hifigan)
    conf = recipe.train_conf_gan
    data = VocoderData(train, validation, recipe, conf, ranks, loader)
    load(gan, data)
    objective = VocoderObjective(gan.to(ranks.device), compute_dtype)
    warmup = conf.discriminator_warmup if _starts_without_discriminators(arguments) else 0
    return Training(conf, objective, data, AdversarialUpdater(objective, conf, ranks, warmup))


def load_start(model: torch.nn.Module, arguments: Arguments, tell: Teller) -> None:
    """Loads the official weights that a new run starts from, if any; of a vocoder also the generator's alone."""
    if not arguments.checkpoint:
        tell("starts from random weights")
        return
    tell(f"starts from {arguments.checkpoint}")
    alone = _starts_without_discriminators(arguments)
    if alone:
        tell("it has no discriminators: they begin at random, and learn alone at first")
    with storage.local_copy(arguments.checkpoint) as path:
        load_official(model.generator if alone and isinstance(model, HiFiGan) else model, path)


def _starts_without_discriminators(arguments: Arguments) -> bool:
    """Whether a vocoder starts from a file such as hift.pt, with or without the prefix `generator.`."""
    if not arguments.checkpoint or arguments.model != "hifigan":
        return False
    with storage.local_copy(arguments.checkpoint) as path:
        keys = read_tensors(path).keys()
    return not any(key.startswith(DISCRIMINATOR) for key in keys)
