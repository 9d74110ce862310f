"""The options of a training run, with the official names; one list for the launching command and for its processes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from cosyflow import storage
from cosyflow.config.options import TrainingOptions, add_options, command_line, option, option_values
from cosyflow.config.recipe import section_of
from cosyflow.credentials import tracking_address, withdrawn_from
from cosyflow.errors import Problem, RefusalError
from cosyflow.families import part, part_names
from cosyflow.training.engine.problems import DEEPSPEED, engine_problems, refuse_if_not_installed

if TYPE_CHECKING:
    from cosyflow.config.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Arguments(TrainingOptions):
    """What a training is given with its recipe: the options of a whole run, and what a whole run settles itself."""

    config: str = option("Recipe, e.g. conf/cosyvoice2.yaml.")
    train_data: str = option("List of parquet files to train on.")
    cv_data: str = option("List of parquet files for cross validation.")
    model_dir: str = option("Folder or s3:// prefix for the checkpoints.")
    checkpoint: str = option("Official weights to start from.", "", effect="identity")
    qwen_pretrain_path: str = option(
        "Qwen2 folder: its tokenizer, and weights when no checkpoint is given.", "", effect="identity"
    )
    onnx_path: str = option(
        "Pretrained folder; only its tokenizer is read, features come from the data.", "", effect="identity"
    )
    tokenizer_path: str = option(
        "Folder of the tokenizer; by default --qwen_pretrain_path, then --onnx_path.", "", effect="identity"
    )
    tensorboard_dir: str = option("Folder for TensorBoard; none when empty.", "")
    dist_backend: str = option(
        "How processes talk; by default nccl on CUDA, else gloo.",
        "",
        spelling="--ddp.dist_backend",
        choices=("", "nccl", "gloo"),
    )
    timeout: int = option("Seconds that processes wait for each other before the run fails.", 1800)
    resume: str = option(
        "auto goes on from the newest checkpoint in --model_dir; none insists that there is none.",
        "auto",
        choices=("auto", "none"),
    )
    seed: int | None = option("Replaces train_conf.seed of the recipe.", None, effect="identity")
    max_steps: int | None = option("End after this many updates of the weights.", None)
    run_name: str = option("Name of the MLflow run; by default recipe and model.", "")
    overrides: tuple[str, ...] = option(
        "Replaces a setting of the recipe, e.g. train_conf.max_epoch=3; may be repeated.",
        (),
        spelling="--set",
        effect="identity",
        metavar="KEY=VALUE",
    )

    @property
    def reference(self) -> str:
        """Weights of the reference of --dpo."""
        return self.ref_model or self.checkpoint

    @property
    def section(self) -> str:
        """The recipe's section with the settings of this training's loop."""
        return section_of(self.model)

    @property
    def recipe_overrides(self) -> tuple[str, ...]:
        """All that replaces settings of the recipe: --set and --seed."""
        seed = () if self.seed is None else (f"{self.section}.seed={self.seed}",)
        return (*self.overrides, *seed)

    @property
    def recipe_name(self) -> str:
        """The recipe's short name: what `run_name` has before the model, else the recipe's file without .yaml.

        A job's processes read a copy of the recipe under another name, so there the launcher gives a run_name.
        """
        before = self.run_name.removesuffix(f"-{self.model}")
        return before if before and before != self.run_name else PurePosixPath(self.config).stem

    @classmethod
    def of(cls, namespace: argparse.Namespace) -> Arguments:
        return cls(**withdrawn_from(option_values(namespace, cls)))

    def command_line(self) -> list[str]:
        """The options that give these arguments again; what has its default is left out."""
        return command_line(self)


def read_recipe(arguments: Arguments) -> Recipe:
    """The recipe with all that replaces its settings. Raises CosyFlowError when it is wrong (see load_config)."""
    from cosyflow.config.load import load_config

    with storage.local_copy(arguments.config) as path:
        return load_config(path, arguments.recipe_overrides)


def tracking_uri(arguments: Arguments) -> str:
    """Where MLflow is; empty when metrics do not go there."""
    return arguments.mlflow_uri or tracking_address()


def check_supported(arguments: Arguments) -> None:
    """Raises RefusalError for what can be asked for and is not there, in the process that would train."""
    problems = list(unsupported(arguments))
    if problems:
        raise RefusalError(problems)
    if arguments.train_engine == DEEPSPEED:
        refuse_if_not_installed()


def unsupported(arguments: Arguments) -> Iterator[Problem]:
    """What can be asked for and is not there."""
    yield from engine_problems(arguments)
    if arguments.num_workers < 0:
        yield Problem("num_workers", f"{arguments.num_workers} is less than 0; give 0 or more")
    if arguments.prefetch < 0:
        yield Problem("prefetch", f"{arguments.prefetch} is less than 0; give 0 or more")
    if arguments.ref_model and not arguments.dpo:
        yield Problem("ref_model", "has a meaning with dpo only; leave it out, or ask for dpo")
    if arguments.dpo and not part(arguments.model).preferences:
        able = " or ".join(name for name in part_names() if part(name).preferences)
        yield Problem("dpo", f"trains the {able}, not the {arguments.model}; leave it out, or take model {able}")
    if arguments.dpo and not arguments.reference:
        yield Problem("dpo", "needs a reference; name it as ref_model, or start from a checkpoint")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a training run to a parser."""
    add_options(parser, Arguments)
