"""Stage 5, train: one model of a recipe, from the merged lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cosyflow import storage
from cosyflow.config.options import LaunchOptions, TrainingOptions
from cosyflow.config.recipe import Recipe
from cosyflow.pretrained import QWEN2_FOLDER, TEXT_TOKENIZERS
from cosyflow.stage import Manifest, StageResult
from cosyflow.stages import Activity
from cosyflow.stages.recipe import load_recipe, recipe_name, recipe_path
from cosyflow.stages.selected import run_selected
from cosyflow.training.arguments import Arguments

AUTO = "auto"
RELEASED = {"hifigan": "hift.pt"}
"""Names of released weights that are not the model's own: of the vocoder there is only the generator."""


@dataclass(frozen=True)
class TrainOptions:
    """What a run chooses beside its recipe; the names are those of `cosyflow train`."""

    model: str
    train_engine: str
    launcher: str
    job: str
    num_nodes: int
    gpus_per_node: int
    num_workers: int
    prefetch: int
    pin_memory: bool
    use_amp: bool
    checkpoint: str
    qwen_pretrain_path: str
    dpo: bool
    ref_model: str
    deepspeed_config: str
    deepspeed_save_states: str
    mlflow_uri: str
    experiment: str


def run(
    lists: Manifest,
    data_root: str,
    recipe: str,
    overrides: Sequence[str],
    pretrained_dir: str,
    options: TrainOptions,
    activity: Activity,
    task_config: Mapping[str, Any] | None = None,
) -> Manifest:
    """Trains a model, or goes on with an interrupted training of the same settings.

    `checkpoint` and `qwen_pretrain_path` of "auto" mean the pretrained directory's, where it has them; "" means none.
    `task_config` is what the task was given for the pods of a training job, as the fields of KFP's `dsl.TaskConfig`.
    """
    settings = load_recipe(recipe, overrides)
    checkpoint = _start(options.checkpoint, pretrained_dir, RELEASED.get(options.model, f"{options.model}.pt"))
    text_tokenizer = TEXT_TOKENIZERS[settings.version]
    has_qwen2 = options.model == "llm" and text_tokenizer == QWEN2_FOLDER
    qwen = _start(options.qwen_pretrain_path, pretrained_dir, QWEN2_FOLDER) if has_qwen2 else ""
    tokenizer = "" if qwen else pretrained_dir

    def work(output: str) -> StageResult:
        from cosyflow.launch.train_stage import launch

        chosen = {entry.name: getattr(options, entry.name) for entry in fields(TrainingOptions)}
        starts = {"checkpoint": checkpoint, "qwen_pretrain_path": qwen, "tokenizer_path": tokenizer}
        arguments = Arguments(
            **{**chosen, **starts},
            config=str(recipe_path(recipe)),
            train_data=storage.join(lists.uri, "train.data.list"),
            cv_data=storage.join(lists.uri, "dev.data.list"),
            model_dir=output,
            tensorboard_dir="" if storage.is_remote(output) else storage.join(output, "tensorboard"),
            run_name=model_name(recipe, options.model),
            overrides=tuple(overrides),
        )
        where = LaunchOptions(**{entry.name: getattr(options, entry.name) for entry in fields(LaunchOptions)})
        return launch(arguments, where, task_config)

    start = {
        "checkpoint": _identity(checkpoint),
        "qwen": _identity(qwen),
        "reference": _identity(options.ref_model),
        "tokenizer": _identity(storage.join(tokenizer, text_tokenizer)) if tokenizer else [],
    }
    return run_selected(
        "train",
        model_name(recipe, options.model),
        storage.join(data_root, settings.version),
        inputs=[lists],
        settings={**_recipe_settings(settings), **_options_settings(options), **start},
        activity=activity,
        work=work,
        code=["cosyflow.models", "cosyflow.training", "cosyflow.dataset", "cosyflow.audio"],
    )


def model_name(recipe: str, model: str) -> str:
    """The name of a recipe's model, for folders and the registry: "cosyvoice2-llm"."""
    return f"{recipe_name(recipe)}-{model}"


def _start(choice: str, pretrained_dir: str, file: str) -> str:
    """Where the weights to start from lie: `choice` itself, or for "auto" the pretrained directory's if it has them."""
    if choice != AUTO:
        return choice
    uri = storage.join(pretrained_dir, file)
    return uri if pretrained_dir and storage.exists(uri) else ""


def _identity(uri: str) -> list[tuple[str, int]]:
    """Names and sizes of the files at a place, which are quick to tell even where the files are large."""
    if not uri or not storage.exists(uri):
        return []
    files = storage.list_files(uri)
    return [(file.path, file.size) for file in files] if files else [(storage.name(uri), storage.size(uri))]


def _recipe_settings(recipe: Recipe) -> dict[str, object]:
    """What of a recipe changes a model: all but the corpus, whose lists are an input."""
    return {name: value for name, value in asdict(recipe).items() if name != "corpus"}


def _options_settings(options: TrainOptions) -> dict[str, object]:
    """What of the options changes a model: loaders' settings and where metrics go do not."""
    return {
        "model": options.model,
        "train_engine": options.train_engine,
        "ranks": options.num_nodes * options.gpus_per_node,
        "use_amp": options.use_amp,
        "dpo": options.dpo,
        "deepspeed_config": Path(options.deepspeed_config).name if options.train_engine == "deepspeed" else "",
    }
