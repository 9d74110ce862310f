"""What is chosen for a training beside its recipe: one list for whole runs, for `cosyflow train` and its processes."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import Any, Literal

Effect = Literal["identity", "progress"]
"""Whether an option names what is trained, or only how far and how it goes, which may change on the way."""


def option(
    meaning: str, default: Any = MISSING, *, spelling: str = "", effect: Effect = "progress", **rest: Any
) -> Any:
    """A field that is an option; without a default it is required.

    Args:
        meaning: one line for the help and for docs/parameters.md.
        spelling: of the command line, where it is not `--` and the field's name.
        rest: further settings of `argparse`'s `add_argument`, e.g. `choices`.
    """
    metadata = {"meaning": meaning, "spelling": spelling, "effect": effect, "settings": rest}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How one part of a recipe is trained."""

    model: str = option("What to train.", "llm", effect="identity", choices=("llm", "flow", "hifigan"))
    train_engine: str = option(
        "How processes train together.", "torch_ddp", effect="identity", choices=("torch_ddp", "deepspeed")
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
        "Weights of the reference of dpo. Empty: those that the training starts from.", "", effect="identity"
    )
    deepspeed_config: str = option("Settings of the deepspeed engine.", "conf/ds_stage2.json")
    deepspeed_save_states: str = option(
        "What deepspeed saves; torch_ddp always saves all that an exact resume needs.",
        "model+optimizer",
        spelling="--deepspeed.save_states",
        choices=("model_only", "model+optimizer"),
    )
    mlflow_uri: str = option(
        "Tracking server and model registry, or sqlite:///FILE. Empty: MLFLOW_TRACKING_URI of the environment.", ""
    )
    experiment: str = option("MLflow experiment of the run.", "cosyflow")


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Where a training's processes run."""

    launcher: str = option(
        "Where to train: local, on this machine (in the task itself); pytorchjob, in a job of the cluster; auto: in a"
        " pod a job.",
        "auto",
        choices=("auto", "local", "pytorchjob"),
    )
    job: str = option(
        "YAML file of settings of a training job's pods: image, devices, volumes, restarts. Empty: the task's own.", ""
    )
    num_nodes: int = option("Machines to train on; more than one needs a pytorchjob.", 1)
    gpus_per_node: int = option(
        "Processes a machine, one for each GPU. -1: all its GPUs, or one process without any; in a job what its file"
        " says, else 1. 0: one process without a GPU. More, on a machine without GPUs: so many processes.",
        -1,
    )
