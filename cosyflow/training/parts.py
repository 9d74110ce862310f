"""The parts of a recipe that can be trained: for each its model and loss, its data, and the weights it starts from.

Which part is trained in which of these ways, or in one of its own, its family says (cosyflow.families).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from cosyflow import storage
from cosyflow.backends import emulates_bfloat16
from cosyflow.checkpoint.official import load_official, read_tensors
from cosyflow.config.llm import LMConfig
from cosyflow.dataset.alignment import Alignment
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.errors import CosyFlowError, Problem, RefusalError
from cosyflow.families import facet, family
from cosyflow.models.flow.model import build_flow
from cosyflow.models.llm.pretrained import load_qwen2_folder
from cosyflow.models.llm.speech_lm import SpeechLM
from cosyflow.models.vocoder.gan import HiFiGan
from cosyflow.training.flow import FlowData, FlowMatchingObjective
from cosyflow.training.indexes import open_indexes
from cosyflow.training.language_data import LanguageModelData
from cosyflow.training.language_model import LanguageModelling, build_language_model
from cosyflow.training.objective import Objective, TrainingData
from cosyflow.training.preference import PreferenceLearning
from cosyflow.training.preference_data import PreferenceData
from cosyflow.training.reference import Reference
from cosyflow.training.setup import Setup
from cosyflow.training.vocoder import VocoderObjective
from cosyflow.training.vocoder_data import VocoderData, usable_windows

DISCRIMINATOR = "discriminator."
"""Prefix of the discriminators' keys in a file of the vocoder's training model."""


@dataclass(frozen=True)
class Part:
    """A part of a recipe that is to be trained, with random weights on the CPU."""

    objective: Objective
    data: TrainingData
    starts: torch.nn.Module
    """What the weights of --checkpoint are loaded into: the whole model, or what of it they are of."""


def build_part(setup: Setup) -> Part:
    """The part that `--model` names; its weights are drawn by the seed of the recipe.

    Raises:
        CosyFlowError: what is asked for does not go together, or the data cannot be used.
    """
    conf = setup.conf
    if setup.compute_dtype == "bfloat16" and setup.ranks.device.type == "cpu" and emulates_bfloat16():
        text = (
            "this processor has no instruction that multiplies bfloat16 (AVX-512 BF16, AMX), and is several times as"
            " slow with it as with float32; give float32 or auto"
        )
        raise RefusalError([Problem(f"{setup.arguments.section}.dtype", text)])
    if conf.compile and not family(setup.recipe.version).part(setup.arguments.model).compiles:
        raise CosyFlowError(f"compile: --model {setup.arguments.model} cannot be compiled; its batches differ in shape")
    if conf.compile and setup.ranks.device.type != "cuda":
        raise CosyFlowError("train_conf.compile: needs CUDA; without it every batch would be compiled anew")
    if conf.compile and setup.arguments.dpo:
        raise CosyFlowError("train_conf.compile: does not go with --dpo; every batch would be compiled anew")
    built: Part = facet(setup.recipe.version, "training").BUILDERS[setup.arguments.model](setup)
    return built


def language_model(setup: Setup) -> Part:
    """Speech tokens after text, by cross entropy or by preferences."""
    config: LMConfig = replace(cast(Any, setup.recipe).llm, compute_dtype=setup.compute_dtype)
    data = _language_data(setup, config)
    torch.manual_seed(setup.conf.seed)
    model = build_language_model(config)
    if setup.arguments.dpo:
        return Part(PreferenceLearning(model, setup.recipe.dpo), data, model)
    return Part(LanguageModelling(model, compiled=setup.conf.compile), data, model)


def _language_data(setup: Setup, config: LMConfig) -> LanguageModelData:
    def checked(index: UtteranceIndex) -> UtteranceIndex:
        index.check_text_ids(config.layout.text_ids)
        return index

    train, validation = open_indexes(setup, checked)
    common = (config, setup.conf, setup.recipe.use_spk_embedding, setup.ranks, setup.loader)
    if not setup.arguments.dpo:
        return LanguageModelData(train, validation, *common)
    uri = setup.arguments.reference

    def build_reference() -> torch.nn.Module:
        model = build_language_model(config)
        with storage.local_copy(uri) as path:
            load_official(model, path)
        return model.to(setup.ranks.device)

    reference = Reference(uri, build_reference, setup.arguments.model_dir, setup.log)
    return PreferenceData(train, validation, *common, reference)


def flow(setup: Setup) -> Part:
    """Mel frames of speech tokens, by flow matching."""
    train, validation = open_indexes(setup, lambda index: index)
    data = FlowData(train, validation, setup.recipe, setup.conf, setup.ranks, setup.loader)
    torch.manual_seed(setup.conf.seed)
    model = build_flow(setup.recipe.flow)
    return Part(FlowMatchingObjective(model, setup.compute_dtype), data, model)


def vocoder(setup: Setup) -> Part:
    """A waveform of mel frames, against discriminators."""
    recipe, conf = setup.recipe, setup.recipe.train_conf_gan

    def usable(index: UtteranceIndex) -> UtteranceIndex:
        result = usable_windows(index, Alignment.of(recipe), conf.window_frames)
        if result.dropped:
            setup.log(f"for the vocoder {result.describe()}")
        return result.index

    train, validation = open_indexes(setup, usable)
    data = VocoderData(train, validation, recipe, conf, setup.ranks, setup.loader)
    torch.manual_seed(conf.seed)
    model = HiFiGan(recipe.hifigan)
    is_alone = _is_generator_alone(setup.arguments.checkpoint)
    objective = VocoderObjective(model, setup.compute_dtype, conf.discriminator_warmup if is_alone else 0)
    return Part(objective, data, model.generator if is_alone else model)


def _is_generator_alone(checkpoint: str) -> bool:
    """Whether a vocoder starts from a file such as hift.pt, with or without the prefix `generator.`."""
    if not checkpoint:
        return False
    with storage.local_copy(checkpoint) as path:
        keys = read_tensors(path).keys()
    return not any(key.startswith(DISCRIMINATOR) for key in keys)


def load_start(part: Part, setup: Setup) -> None:
    """Loads the official weights that a new run starts from: the checkpoint, else the Qwen2 folder, else none.

    Raises:
        CosyFlowError: they do not fit the recipe's model.
    """
    arguments, model = setup.arguments, part.objective.model
    if arguments.checkpoint:
        setup.log(f"starts from {arguments.checkpoint}")
        if part.starts is not model:
            setup.log("it has no discriminators: they begin at random, and are trained first, without the generator")
        with storage.local_copy(arguments.checkpoint) as path:
            load_official(part.starts, path)
    elif arguments.qwen_pretrain_path and isinstance(model, SpeechLM):
        setup.log(f"starts from {arguments.qwen_pretrain_path}; the speech parts begin at random")
        with storage.local_copy(arguments.qwen_pretrain_path) as path:
            load_qwen2_folder(model, path)
    else:
        setup.log("starts from random weights")
