"""One process of a training run: from its arguments to the last checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Literal, cast

import torch

from cosyflow import __version__, storage
from cosyflow.config.llm import LMConfig
from cosyflow.config.recipe import Recipe
from cosyflow.config.training import TrainConf
from cosyflow.errors import CosyFlowError
from cosyflow.progress import say
from cosyflow.training.arguments import Arguments, check_supported
from cosyflow.training.checkpoints import CheckpointWriter, Resumption, load
from cosyflow.training.heartbeat import HEARTBEAT_VARIABLE, watching
from cosyflow.training.language_model import LanguageModelling, build_language_model
from cosyflow.training.loop import Ending, StopRequest, train
from cosyflow.training.objective import Objective, TrainingData
from cosyflow.training.ranks import Backend, Ranks, process_group
from cosyflow.training.start import find_checkpoint, load_checkpoint, load_start
from cosyflow.training.telemetry import Telemetry, peak_flops
from cosyflow.training.tracking import Sink, Tracker
from cosyflow.training.tracking.metrics_file import METRICS_FILE, MetricsFile

RESULT_FILE = "result.json"
MLFLOW_VARIABLE = "MLFLOW_TRACKING_URI"

Teller = Callable[[str], None]


def run(arguments: Arguments) -> Ending:
    """Trains as one of the processes that torchrun started, or alone.

    Raises:
        CosyFlowError: what is asked for is not there, or an input is wrong.
    """
    from cosyflow.config.load import load_config

    check_supported(arguments)
    seed = [] if arguments.seed is None else [f"train_conf.seed={arguments.seed}"]
    with storage.local_copy(arguments.config) as path:
        recipe = load_config(path, [*arguments.overrides, *seed])
    backend = cast(Backend, arguments.dist_backend) if arguments.dist_backend else None
    with process_group(backend, arguments.timeout) as ranks, StopRequest().listening() as stop:
        heartbeat = os.environ.get(HEARTBEAT_VARIABLE, "") if ranks.is_first else ""
        with watching(heartbeat, on_stale=stop.ask):
            return _train_language_model(arguments, recipe, ranks, stop)


def _train_language_model(arguments: Arguments, recipe: Recipe, ranks: Ranks, stop: StopRequest) -> Ending:
    conf = recipe.train_conf
    if conf.compile and ranks.device.type != "cuda":
        raise CosyFlowError("train_conf.compile: needs CUDA; without it every batch would be compiled anew")
    tell = partial(say, f"train {arguments.model}") if ranks.is_first else _say_nothing
    compute_dtype = _compute_dtype(conf, arguments.use_amp, ranks.device)
    config: LMConfig = replace(cast(Any, recipe).llm, compute_dtype=compute_dtype)
    tell(f"{recipe.version} on {ranks.world_size} x {ranks.device.type}, {compute_dtype}")

    checkpoint = ranks.share(lambda: find_checkpoint(arguments))
    data = _open_data(arguments, recipe, config, ranks, tell)
    torch.manual_seed(conf.seed)
    model = build_language_model(config)
    resumption = None
    if checkpoint is None:
        load_start(model, arguments, tell)
    else:
        tell(f"goes on from {checkpoint.tag}")
        resumption = load(checkpoint)
        load_checkpoint(model, resumption)

    objective = LanguageModelling(model.to(ranks.device), compiled=conf.compile)
    run_settings = {"compute_dtype": compute_dtype, "world_size": ranks.world_size}
    return _train(arguments, recipe, ranks, stop, objective, data, resumption, run_settings, tell)


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
) -> Ending:
    """Trains any objective, with checkpoints and metrics written by the first rank."""
    conf = recipe.train_conf
    settings = {**_plain(asdict(conf)), **_plain(asdict(arguments)), **run_settings, "version": recipe.version}
    writer, tracker = None, Tracker()
    if ranks.is_first:
        writer = CheckpointWriter(arguments.model_dir, settings, conf.keep_last, conf.keep_best)
        tracker = Tracker(_sinks(arguments, settings, resumption.position.update if resumption else 0))
    peak = peak_flops(ranks.device) if run_settings["compute_dtype"] == "bfloat16" else None
    telemetry = Telemetry(conf, ranks, tell, tracker.write, peak)
    finished = False
    try:
        ending = train(objective, data, conf, ranks, telemetry, writer, resumption, stop, arguments.max_steps)
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
    """The first rank reads the lists and tokenises the texts; the others get the indexes from it."""
    from cosyflow.dataset.filter import filter_utterances
    from cosyflow.dataset.index import build_index
    from cosyflow.dataset.utterances import UtteranceIndex
    from cosyflow.text.tokenizer import build_tokenizer
    from cosyflow.training.language_data import LanguageModelData, LoaderSettings

    def open_index(data_list: str) -> UtteranceIndex:
        index = build_index(data_list, tokenizer)
        result = filter_utterances(index, recipe.filter, recipe.sample_rate)
        tell(f"{data_list}: {result.describe()}")
        result.index.check_text_ids(config.layout.text_ids)
        return result.index

    def open_indexes() -> tuple[UtteranceIndex, UtteranceIndex]:
        return open_index(arguments.train_data), open_index(arguments.cv_data)

    if ranks.is_first:
        tokenizer = build_tokenizer(recipe.version, _tokenizer_path(arguments))
    train_index, validation_index = ranks.share(open_indexes)
    loader = LoaderSettings(arguments.num_workers, arguments.prefetch or None, arguments.pin_memory)
    return LanguageModelData(
        train_index, validation_index, config, recipe.train_conf, recipe.use_spk_embedding, ranks, loader
    )


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
    uri = arguments.mlflow_uri or os.environ.get(MLFLOW_VARIABLE, "")
    if uri:
        from cosyflow.training.tracking.mlflow import Mlflow, MlflowRun

        name = arguments.run_name or f"{settings['version']}-{arguments.model}"
        params = {key: str(value)[:500] for key, value in settings.items()}
        tags = {"cosyflow.version": __version__, "recipe": settings["version"], "model": arguments.model}
        run = MlflowRun(uri, arguments.experiment, name, params, tags)
        sinks["MLflow"] = partial(Mlflow, run, arguments.model_dir)
    return sinks


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
        "checkpoint": position.tag,
        "updates": position.update,
        "epochs": len(position.epochs),
        "world_size": ranks.world_size,
        "device": ranks.device.type,
        "first_epoch": first,
        "last_epoch": last,
        "tokens_per_second": round(telemetry.tokens_per_second(), 1),
        "seconds": round(position.seconds, 1),
    }
