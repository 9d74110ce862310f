"""One process of a training run: from its arguments to the last checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from cosyflow import __version__, storage
from cosyflow.backends import keep_freed_memory
from cosyflow.checkpoint.official import load_official
from cosyflow.checkpoint.state import Resumption
from cosyflow.checkpoint.writer import CheckpointWriter
from cosyflow.config.llm import LMConfig
from cosyflow.config.recipe import Recipe
from cosyflow.config.training import TrainConf
from cosyflow.errors import CosyFlowError
from cosyflow.progress import say
from cosyflow.provenance import git_commit, git_is_clean, run_tags
from cosyflow.training.arguments import Arguments, check_supported, read_recipe, tracking_uri
from cosyflow.training.heartbeat import HEARTBEAT_VARIABLE, watching
from cosyflow.training.language_model import LanguageModelling, build_language_model
from cosyflow.training.loop import Ending, StopRequest, train
from cosyflow.training.objective import Objective, TrainingData
from cosyflow.training.parent import PARENT_VARIABLE, watching_parent
from cosyflow.training.preference import PreferenceLearning
from cosyflow.training.ranks import Backend, Ranks, process_group
from cosyflow.training.start import check_folder, choose_resumption, fit_to_ranks, load_checkpoint, load_start
from cosyflow.training.telemetry import Telemetry, peak_flops
from cosyflow.training.tracking import Sink, Tracker
from cosyflow.training.tracking.metrics_file import METRICS_FILE, MetricsFile

if TYPE_CHECKING:
    from cosyflow.dataset.utterances import UtteranceIndex
    from cosyflow.training.update import UpdateStrategy

RESULT_FILE = "result.json"

Teller = Callable[[str], None]


def run(arguments: Arguments) -> Ending:
    """Trains as one of the processes that torchrun started, or alone.

    Raises:
        CosyFlowError: what is asked for is not there, or an input is wrong.
    """
    check_supported(arguments)
    recipe = read_recipe(arguments)
    backend = cast(Backend, arguments.dist_backend) if arguments.dist_backend else None
    with process_group(backend, arguments.timeout) as ranks, StopRequest().listening() as stop:
        if ranks.is_first:
            check_folder(arguments, recipe.conf_of(arguments.model))
        if ranks.device.type == "cpu":
            keep_freed_memory()
        heartbeat = os.environ.get(HEARTBEAT_VARIABLE, "") if ranks.is_first else ""
        parent = os.environ.get(PARENT_VARIABLE, "") if ranks.is_first else ""
        with watching(heartbeat, on_stale=stop.ask), watching_parent(parent, on_end=stop.ask):
            train_model = _train_language_model if arguments.model == "llm" else _train_acoustic_model
            return train_model(arguments, recipe, ranks, stop)


def _train_language_model(arguments: Arguments, recipe: Recipe, ranks: Ranks, stop: StopRequest) -> Ending:
    conf = recipe.train_conf
    if conf.compile and ranks.device.type != "cuda":
        raise CosyFlowError("train_conf.compile: needs CUDA; without it every batch would be compiled anew")
    tell = partial(say, f"train {arguments.model}") if ranks.is_first else _say_nothing
    compute_dtype = _compute_dtype(conf, arguments.use_amp, ranks.device)
    config: LMConfig = replace(cast(Any, recipe).llm, compute_dtype=compute_dtype)
    if conf.compile and arguments.dpo:
        raise CosyFlowError("train_conf.compile: does not go with --dpo; every batch would be compiled anew")
    tell(f"{recipe.version} on {ranks.world_size} x {ranks.device.type}, {compute_dtype}")

    resumption = choose_resumption(arguments, ranks, tell)
    data = _open_data(arguments, recipe, config, ranks, tell)
    torch.manual_seed(conf.seed)
    model = build_language_model(config)
    resumption = fit_to_ranks(resumption, data, arguments.model_dir, ranks, tell)
    if resumption is None:
        load_start(model, arguments, tell)
    else:
        tell(f"goes on from {resumption.name}")
        load_checkpoint(model, resumption)

    model = model.to(ranks.device)
    objective: Objective
    if arguments.dpo:
        objective = PreferenceLearning(model, recipe.dpo)
    else:
        objective = LanguageModelling(model, compiled=conf.compile)
    run_settings = {"compute_dtype": compute_dtype, "world_size": ranks.world_size}
    return _train(arguments, recipe, ranks, stop, objective, data, resumption, run_settings, tell, conf)


def _train_acoustic_model(arguments: Arguments, recipe: Recipe, ranks: Ranks, stop: StopRequest) -> Ending:
    from cosyflow.training import acoustic
    from cosyflow.training.planned_data import LoaderSettings

    conf = recipe.conf_of(arguments.model)
    tell = partial(say, f"train {arguments.model}") if ranks.is_first else _say_nothing
    compute_dtype = _compute_dtype(conf, arguments.use_amp, ranks.device)
    if conf.compile:
        raise CosyFlowError(f"compile: --model {arguments.model} cannot be compiled; its batches differ in shape")
    tell(f"{recipe.version} on {ranks.world_size} x {ranks.device.type}, {compute_dtype}")

    resumption = choose_resumption(arguments, ranks, tell)
    indexes = _open_indexes(
        arguments, recipe, ranks, tell, lambda index: acoustic.usable(arguments, recipe, index, tell)
    )

    def load_weights(model: torch.nn.Module, data: TrainingData) -> None:
        nonlocal resumption
        resumption = fit_to_ranks(resumption, data, arguments.model_dir, ranks, tell)
        if resumption is None:
            acoustic.load_start(model, arguments, tell)
        else:
            tell(f"goes on from {resumption.name}")
            load_checkpoint(model, resumption)

    torch.manual_seed(conf.seed)
    loader = LoaderSettings(arguments.num_workers, arguments.prefetch or None, arguments.pin_memory)
    training = acoustic.prepare(arguments, recipe, *indexes, load_weights, compute_dtype, ranks, loader)
    run_settings = {"compute_dtype": compute_dtype, "world_size": ranks.world_size}
    return _train(
        arguments,
        recipe,
        ranks,
        stop,
        training.objective,
        training.data,
        resumption,
        run_settings,
        tell,
        conf,
        training.updater,
    )


def _train(
    arguments: Arguments,
    recipe: Recipe,
    ranks: Ranks,
    stop: StopRequest,
    objective: Objective,
    data: TrainingData,
    resumption: Resumption | None,
    run_settings: Mapping[str, Any],
    tell: Teller,
    conf: TrainConf,
    updater: UpdateStrategy | None = None,
) -> Ending:
    """Trains any objective, with checkpoints and metrics written by the first rank."""
    settings = {**_plain(asdict(conf)), **_plain(asdict(arguments)), **run_settings, "version": recipe.version}
    writer, tracker = None, Tracker()
    if ranks.is_first:
        done = resumption.position.update if resumption else 0
        writer = CheckpointWriter(arguments.model_dir, settings, conf.keep_last, conf.keep_best, done)
        tracker = Tracker(_sinks(arguments, settings, done))
    peak = peak_flops(ranks.device) if run_settings["compute_dtype"] == "bfloat16" else None
    telemetry = Telemetry(conf, ranks, tell, tracker.write, peak)
    finished = False
    try:
        ending = train(objective, data, conf, ranks, telemetry, writer, resumption, stop, arguments.max_steps, updater)
        finished = ending.finished
    finally:
        tracker.close(finished)
    if ranks.is_first and finished:
        storage.write_json(storage.join(arguments.model_dir, RESULT_FILE), _result(ending, telemetry, ranks))
    ranks.barrier()
    return ending


def _say_nothing(message: str) -> None:
    """What every rank but the first says."""


def _compute_dtype(conf: TrainConf, use_amp: bool, device: torch.device) -> Literal["float32", "bfloat16"]:
    if conf.dtype == "auto" or (use_amp and device.type == "cuda"):
        return "bfloat16" if device.type == "cuda" else "float32"
    return conf.dtype


def _open_data(arguments: Arguments, recipe: Recipe, config: LMConfig, ranks: Ranks, tell: Teller) -> TrainingData:
    """Both sets, for a language model."""
    from cosyflow.training.language_data import LanguageModelData
    from cosyflow.training.planned_data import LoaderSettings

    def checked(index: UtteranceIndex) -> UtteranceIndex:
        index.check_text_ids(config.layout.text_ids)
        return index

    train_index, validation_index = _open_indexes(arguments, recipe, ranks, tell, checked)
    loader = LoaderSettings(arguments.num_workers, arguments.prefetch or None, arguments.pin_memory)
    settings = (config, recipe.train_conf, recipe.use_spk_embedding, ranks, loader)
    if not arguments.dpo:
        return LanguageModelData(train_index, validation_index, *settings)

    from cosyflow.training.preference_data import PreferenceData, Reference

    def build_reference() -> torch.nn.Module:
        model = build_language_model(config)
        with storage.local_copy(arguments.reference) as path:
            load_official(model, path)
        return model.to(ranks.device)

    reference = Reference(arguments.reference, build_reference, arguments.model_dir, tell)
    return PreferenceData(train_index, validation_index, *settings, reference)


def _open_indexes(
    arguments: Arguments,
    recipe: Recipe,
    ranks: Ranks,
    tell: Teller,
    narrow: Callable[[UtteranceIndex], UtteranceIndex],
) -> tuple[UtteranceIndex, UtteranceIndex]:
    """What is left of training and validation set after the recipe's filter and `narrow`.

    The first rank reads the lists and tokenises the texts; the others get the indexes from it.
    """
    from cosyflow.dataset.filter import filter_utterances
    from cosyflow.dataset.index import build_index
    from cosyflow.text.tokenizer import build_tokenizer

    def open_index(data_list: str) -> UtteranceIndex:
        index = build_index(data_list, tokenizer)
        result = filter_utterances(index, recipe.filter, recipe.sample_rate, rejected=arguments.dpo)
        tell(f"{data_list}: {result.describe()}")
        return narrow(result.index)

    def open_both() -> tuple[UtteranceIndex, UtteranceIndex]:
        return open_index(arguments.train_data), open_index(arguments.cv_data)

    if ranks.is_first:
        tokenizer = build_tokenizer(recipe.version, _tokenizer_path(arguments))
    return ranks.share(open_both)


def _tokenizer_path(arguments: Arguments) -> str:
    path = arguments.tokenizer_path or arguments.qwen_pretrain_path or arguments.onnx_path
    if not path:
        raise CosyFlowError("no tokenizer: name its folder as --tokenizer_path or --qwen_pretrain_path")
    return path


def _sinks(arguments: Arguments, settings: Mapping[str, Any], done: int) -> dict[str, Callable[[], Sink]]:
    """What makes the places where metrics go, for a run of which `done` updates are behind it."""
    sinks: dict[str, Callable[[], Sink]] = {}
    sinks[METRICS_FILE] = partial(MetricsFile, storage.join(arguments.model_dir, METRICS_FILE), done)
    if arguments.tensorboard_dir:
        from cosyflow.training.tracking.tensorboard import TensorBoard

        sinks["TensorBoard"] = partial(TensorBoard, arguments.tensorboard_dir, done)
    uri = tracking_uri(arguments)
    if uri:
        from cosyflow.training.tracking.mlflow import Mlflow, MlflowRun

        name = arguments.run_name or f"{arguments.recipe_name}-{arguments.model}"
        params = {key: str(value)[:500] for key, value in settings.items()}
        run = MlflowRun(uri, arguments.experiment, name, params, _tags(arguments, str(settings["version"])))
        sinks["MLflow"] = partial(Mlflow, run, arguments.model_dir)
    return sinks


def _tags(arguments: Arguments, version: str) -> dict[str, str]:
    """What is told of a run in MLflow beside its settings."""
    return {
        "cosyflow.version": __version__,
        "recipe": arguments.recipe_name,
        "recipe_file": arguments.config,
        "version": version,
        "model": arguments.model,
        "git_commit": git_commit(),
        "git_clean": git_is_clean(),
        **run_tags(),
    }


def _plain(value: Any) -> Any:
    """Tuples as lists, so that a safe YAML reader takes them."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _result(ending: Ending, telemetry: Telemetry, ranks: Ranks) -> dict[str, Any]:
    """What a summary tells of a finished run."""
    position = ending.position
    first, last = (position.epochs[0], position.epochs[-1]) if position.epochs else ({}, {})
    return {
        "checkpoint": position.name,
        "updates": position.update,
        "epochs": len(position.epochs),
        "world_size": ranks.world_size,
        "device": ranks.device.type,
        "first_epoch": first,
        "last_epoch": last,
        "tokens_per_second": round(telemetry.tokens_per_second(), 1),
        "seconds": round(position.seconds, 1),
    }
