"""What is chosen for a training besides its recipe: one list for runs, for `cosyflow train` and its processes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal

from cosyflow.families import part_names

STAGE_NAMES = (
    "download",
    "prepare",
    "speaker-embedding",
    "speech-token",
    "parquet",
    "merge",
    "train",
    "average",
    "export",
    "register",
)
"""The stages in their order: of commands, components, tasks and folders."""

Effect = Literal["identity", "progress"]
"""Whether an option names what is trained, or only how far and how it goes, which may change on the way."""


def option(
    meaning: str,
    default: Any = MISSING,
    *,
    spelling: str = "",
    effect: Effect = "progress",
    place: bool = False,
    **rest: Any,
) -> Any:
    """A field that is an option; without a default it is required.

    Args:
        meaning: one line for the help and for docs/parameters.md.
        spelling: of the command line, where it is not `--` and the field's name.
        place: it is a path or URI; what lies there counts, by content.
        rest: further settings of `argparse`'s `add_argument`, e.g. `choices`.
    """
    metadata = {"meaning": meaning, "spelling": spelling, "effect": effect, "place": place, "settings": rest}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


def spelling(entry: Field[Any]) -> str:
    """An option's official name on a command line."""
    return str(entry.metadata["spelling"]) or f"--{entry.name}"


def add_options(parser: argparse.ArgumentParser, kind: type) -> None:
    """Adds the options of a dataclass to a parser, the required ones first."""
    for entry in sorted(fields(kind), key=lambda entry: entry.default is not MISSING):
        parser.add_argument(spelling(entry), dest=entry.name, **_argparse_settings(entry))


def option_values(namespace: argparse.Namespace, kind: type) -> dict[str, Any]:
    """What a parser with the options of a dataclass read, as the dataclass takes it."""
    values = {entry.name: getattr(namespace, entry.name) for entry in fields(kind)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def command_line(options: Any) -> list[str]:
    """The words that give a dataclass of options again; what has its default is left out."""
    words: list[str] = []
    for entry in fields(options):
        name, value = spelling(entry), getattr(options, entry.name)
        if value == entry.default:
            continue
        if isinstance(value, bool):
            words.append(name if value else f"--no-{name[2:]}")
        else:
            for word in map(str, value if isinstance(value, tuple) else (value,)):
                # argparse takes a word of its own with a hyphen in front for an option
                words += [f"{name}={word}"] if word.startswith("-") else [name, word]
    return words


def _argparse_settings(entry: Field[Any]) -> Mapping[str, Any]:
    settings = {"help": entry.metadata["meaning"].replace("%", "%%"), **entry.metadata["settings"]}
    if entry.default is MISSING:
        return {**settings, "required": True}
    if entry.default is True:
        return {**settings, "action": argparse.BooleanOptionalAction, "default": True}
    if entry.default is False:
        return {**settings, "action": "store_true"}
    if entry.default == ():
        return {**settings, "action": "append", "default": []}
    is_number = isinstance(entry.default, int) or entry.default is None
    return {**settings, "type": int if is_number else str, "default": entry.default}


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How one part of a recipe is trained."""

    model: str = option("What to train.", part_names()[0], effect="identity", choices=part_names())
    train_engine: str = option(
        "How processes train together; a training goes on under either.",
        "torch_ddp",
        choices=("torch_ddp", "deepspeed"),
    )
    num_workers: int = option("Processes of each rank that read data.", 2)
    prefetch: int = option("Batches that each of them reads ahead; 0 chooses.", 100)
    pin_memory: bool = option("Read into memory that a GPU can copy from at full speed.", True)
    use_amp: bool = option("Compute in bfloat16 on a GPU; weights and optimizer stay float32.", True, effect="identity")
    dpo: bool = option(
        "Train the llm on preferences, of chosen over rejected speech; the shards need rejected speech (reject_dir).",
        False,
        effect="identity",
    )
    ref_model: str = option(
        "Weights of the reference of dpo. Empty: those that the training starts from.",
        "",
        effect="identity",
        place=True,
    )
    resume_from: str = option(
        "Checkpoint (epoch_N_whole.pt, with its state in the same folder) of another training that a new one goes on"
        " from with optimizer and position, under this run's settings. Empty: none.",
        "",
        effect="identity",
        place=True,
    )
    deepspeed_config: str = option("Settings of the deepspeed engine; the recipe wins.", "conf/ds_stage2.json")
    deepspeed_save_states: str = option(
        "What deepspeed saves; with model_only a training that goes on begins with a fresh optimizer.",
        "model+optimizer",
        spelling="--deepspeed.save_states",
        choices=("model_only", "model+optimizer"),
    )
    strict: bool = option("Refuse values of deepspeed_config that the recipe says otherwise.", False)
    mlflow_uri: str = option(
        "Tracking server and model registry, or sqlite:///FILE. Empty: MLFLOW_TRACKING_URI of the environment.", ""
    )
    experiment: str = option("MLflow experiment of the run.", "cosyflow")


LAUNCHERS = ("auto", "local", "pytorchjob")
"""Where a training's processes may run; of each but the first two there is a kind in cosyflow/launch/kinds."""


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Where a training's processes run."""

    launcher: str = option(
        "Where to train: local, on this machine (in the task itself); pytorchjob, in a job of the cluster; auto: in a"
        " pod a job.",
        "auto",
        choices=LAUNCHERS,
    )
    job: str = option(
        "YAML file of settings of a training job's pods: image, devices, volumes, restarts. Empty: the task's own.", ""
    )
    num_nodes: int = option("Machines to train on; more than one needs a pytorchjob.", 1)
    gpus_per_node: int = option(
        "Processes a machine, one for each GPU. -1: all its GPUs, or one process without any; in a job what its file"
        " says, else 1. 0: one process without a GPU. More, on a machine without GPUs: that number of processes.",
        -1,
    )
