"""The options of a training run, with the official names; one list for the launching command and for its processes."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from cosyflow.errors import CosyFlowError


def _option(name: str, meaning: str, default: Any = MISSING, **settings: Any) -> Any:
    """A field that is an option of the command line; without a default it is required."""
    metadata = {"option": name, "settings": {"help": meaning, **settings}}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What a training run is told beside its recipe."""

    config: str = _option("--config", "recipe, e.g. conf/cosyvoice2.yaml")
    train_data: str = _option("--train_data", "list of parquet files to train on")
    cv_data: str = _option("--cv_data", "list of parquet files for cross validation")
    model_dir: str = _option("--model_dir", "folder or s3:// prefix for the checkpoints")
    model: str = _option("--model", "which model of the recipe", "llm", choices=("llm", "flow", "hifigan"))
    train_engine: str = _option(
        "--train_engine", "how processes train together", "torch_ddp", choices=("torch_ddp", "deepspeed")
    )
    checkpoint: str = _option("--checkpoint", "official weights to start from", "")
    qwen_pretrain_path: str = _option(
        "--qwen_pretrain_path", "Qwen2 folder: its tokenizer, and weights when no checkpoint is given", ""
    )
    onnx_path: str = _option(
        "--onnx_path", "pretrained folder; only its tokenizer is read, features come from the data", ""
    )
    tokenizer_path: str = _option(
        "--tokenizer_path", "folder of the tokenizer; by default --qwen_pretrain_path, then --onnx_path", ""
    )
    tensorboard_dir: str = _option("--tensorboard_dir", "folder for TensorBoard; none when empty", "")
    dist_backend: str = _option(
        "--ddp.dist_backend", "how processes talk; by default nccl on CUDA, else gloo", "", choices=("", "nccl", "gloo")
    )
    num_workers: int = _option("--num_workers", "processes that read ahead, for each training process", 0)
    prefetch: int = _option("--prefetch", "batches that each of them reads ahead; 0 chooses", 0)
    pin_memory: bool = _option("--pin_memory", "read into page-locked memory (CUDA)", False)
    use_amp: bool = _option("--use_amp", "compute in bfloat16 on CUDA; weights and optimizer stay float32", False)
    dpo: bool = _option("--dpo", "train the llm on preferences: the data has rejected speech for its texts", False)
    ref_model: str = _option("--ref_model", "official weights of the reference of --dpo; by default --checkpoint", "")
    deepspeed_config: str = _option("--deepspeed_config", "settings of the deepspeed engine", "")
    save_states: str = _option(
        "--deepspeed.save_states",
        "what the deepspeed engine saves; torch_ddp always saves all that an exact resume needs",
        "model_only",
        choices=("model_only", "model+optimizer"),
    )
    timeout: int = _option("--timeout", "seconds that processes wait for each other before the run fails", 1800)
    resume: str = _option(
        "--resume",
        "auto goes on from the newest checkpoint in --model_dir; none insists that there is none",
        "auto",
        choices=("auto", "none"),
    )
    seed: int | None = _option("--seed", "replaces train_conf.seed of the recipe", None)
    max_steps: int | None = _option("--max_steps", "end after so many updates of the weights", None)
    mlflow_uri: str = _option(
        "--mlflow_uri", "MLflow server or sqlite:///FILE; by default MLFLOW_TRACKING_URI, else none", ""
    )
    experiment: str = _option("--experiment", "MLflow experiment", "cosyflow")
    run_name: str = _option("--run_name", "name of the MLflow run; by default recipe and model", "")
    overrides: tuple[str, ...] = _option(
        "--set", "replaces a setting of the recipe, e.g. train_conf.max_epoch=3; may be repeated", ()
    )

    @property
    def reference(self) -> str:
        """Weights of the reference of --dpo."""
        return self.ref_model or self.checkpoint

    @classmethod
    def of(cls, namespace: argparse.Namespace) -> Arguments:
        values = {entry.name: getattr(namespace, entry.name) for entry in fields(cls)}
        return cls(**{**values, "overrides": tuple(values["overrides"])})

    def command_line(self) -> list[str]:
        """The options that give these arguments again; what has its default is left out."""
        words: list[str] = []
        for entry in fields(self):
            option, value = entry.metadata["option"], getattr(self, entry.name)
            if value == entry.default:
                continue
            if entry.name == "overrides":
                words += [word for override in value for word in (option, override)]
            else:
                words += [option] if value is True else [option, str(value)]
        return words


def check_supported(arguments: Arguments) -> None:
    """Raises CosyFlowError for what can be asked for and is not there."""
    if arguments.train_engine != "torch_ddp":
        raise CosyFlowError(f"--train_engine {arguments.train_engine}: it is not there yet, only torch_ddp is")
    if arguments.ref_model and not arguments.dpo:
        raise CosyFlowError("--ref_model: has a meaning with --dpo only")
    if arguments.dpo and arguments.model != "llm":
        raise CosyFlowError(f"--dpo: trains the llm, not --model {arguments.model}")
    if arguments.dpo and not arguments.reference:
        raise CosyFlowError("--dpo: needs a reference, name it as --ref_model or start from a --checkpoint")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a training run to a parser."""
    for entry in fields(Arguments):
        parser.add_argument(entry.metadata["option"], dest=entry.name, **_settings(entry))


def _settings(entry: Field[Any]) -> dict[str, Any]:
    settings = dict(entry.metadata["settings"])
    if entry.default is MISSING:
        return {**settings, "required": True}
    if entry.default is False:
        return {**settings, "action": "store_true"}
    if entry.default == ():
        return {**settings, "action": "append", "default": [], "metavar": "KEY=VALUE"}
    is_number = isinstance(entry.default, int) or entry.default is None
    return {**settings, "type": int if is_number else str, "default": entry.default}
