"""The train stage: one model of a recipe, trained by processes on this machine or by a job of a cluster."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.launch.local import run_locally
from cosyflow.launch.pytorchjob.client import in_a_pod
from cosyflow.launch.pytorchjob.job import train_in_cluster
from cosyflow.launch.pytorchjob.settings import read_settings, with_task_config
from cosyflow.stage import StageResult
from cosyflow.training.arguments import Arguments, check_supported

LAUNCHERS = ("auto", "local", "pytorchjob")
MODULE = "cosyflow.training"
LOG_FILE = "train.log"
RESULT_FILE = "result.json"
METRICS_FILE = "metrics.jsonl"


def launch(
    arguments: Arguments,
    launcher: str = "auto",
    num_nodes: int = 1,
    gpus_per_node: int = 0,
    job: str = "",
    task_config: Mapping[str, Any] | None = None,
) -> StageResult:
    """Trains as the arguments tell, and waits for the end.

    Args:
        arguments: of the training processes.
        launcher: "local"; "pytorchjob", in the cluster of this pod or of KUBECONFIG; "auto": "pytorchjob" in a pod.
        num_nodes: machines; "local" has one.
        gpus_per_node: processes on each machine; 0 takes one for each CUDA device ("local"), or one without a device.
        job: YAML file of settings of a PyTorchJob's pods (`cosyflow.launch.pytorchjob.settings`); empty: none.
        task_config: what a KFP task was given for the pods, as the fields of `dsl.TaskConfig`.

    Raises:
        CosyFlowError: what is asked for is not there, or the training failed or was stopped.
    """
    if launcher not in LAUNCHERS:
        raise CosyFlowError(f"--launcher {launcher}: not one of {', '.join(LAUNCHERS)}")
    in_cluster = launcher == "pytorchjob" or (launcher == "auto" and in_a_pod())
    if num_nodes != 1 and not in_cluster:
        raise CosyFlowError(f"--num_nodes {num_nodes}: several machines need --launcher pytorchjob; here it is 1")
    check_supported(arguments)
    _check_inputs(arguments)
    with _log_file(arguments.model_dir) as log:
        if not in_cluster:
            _run(arguments, gpus_per_node, log)
            return _result(arguments.model_dir)
        settings = with_task_config(read_settings(job), task_config or {})
        left = train_in_cluster(arguments, settings, num_nodes, gpus_per_node, log)
    result = _result(arguments.model_dir)
    return replace(result, files=[*result.files, *left])


def train_model(
    *,
    train_list: str,
    cv_list: str,
    recipe_path: str,
    output_dir: str,
    model: str = "llm",
    overrides: Sequence[str] = (),
    train_engine: str = "torch_ddp",
    launcher: str = "auto",
    num_nodes: int = 1,
    gpus_per_node: int = 0,
    job: str = "",
    task_config: Mapping[str, Any] | None = None,
    num_workers: int = 0,
    prefetch: int = 0,
    pin_memory: bool = False,
    use_amp: bool = False,
    checkpoint: str = "",
    qwen_pretrain_path: str = "",
    dpo: bool = False,
    ref_model: str = "",
    tokenizer_path: str = "",
    deepspeed_config: str = "",
    deepspeed_save_states: str = "model_only",
    mlflow_uri: str = "",
    experiment: str = "cosyflow",
    run_name: str = "",
) -> StageResult:
    """Trains into `output_dir` (checkpoints, metrics, TensorBoard files, the log), going on with what is there.

    Args:
        train_list, cv_list: `data.list` files.
        recipe_path: YAML file; `overrides` are `key=value` settings that replace its own.
        tokenizer_path: folder of the tokenizer where it is not `qwen_pretrain_path`.
        run_name: of the MLflow run; by default version and model.
        launcher, num_nodes, gpus_per_node, job, task_config: see `launch`.
        The others are the options of `cosyflow train`.

    Raises:
        CosyFlowError: see `launch`.
    """
    arguments = Arguments(
        config=str(recipe_path),
        train_data=train_list,
        cv_data=cv_list,
        model_dir=output_dir,
        model=model,
        train_engine=train_engine,
        checkpoint=checkpoint,
        qwen_pretrain_path=qwen_pretrain_path,
        dpo=dpo,
        ref_model=ref_model,
        tokenizer_path=tokenizer_path,
        tensorboard_dir="" if storage.is_remote(output_dir) else storage.join(output_dir, "tensorboard"),
        num_workers=int(num_workers),
        prefetch=int(prefetch),
        pin_memory=pin_memory,
        use_amp=use_amp,
        deepspeed_config=deepspeed_config,
        save_states=deepspeed_save_states,
        mlflow_uri=mlflow_uri,
        experiment=experiment,
        run_name=run_name,
        overrides=tuple(overrides),
    )
    return launch(arguments, launcher, int(num_nodes), int(gpus_per_node), job, task_config)


@contextmanager
def _log_file(model_dir: str) -> Iterator[Path]:
    """A file for the output, which ends up beside the model, also when the body raises."""
    if not storage.is_remote(model_dir):
        yield Path(model_dir) / LOG_FILE
        return
    with tempfile.TemporaryDirectory(prefix="cosyflow-train-") as folder:
        log = Path(folder) / LOG_FILE
        try:
            yield log
        finally:
            if log.exists():
                storage.write_bytes(storage.join(model_dir, LOG_FILE), log.read_bytes())


def _check_inputs(arguments: Arguments) -> None:
    """What can be said before any process is started."""
    for option, uri in (
        ("--config", arguments.config),
        ("--train_data", arguments.train_data),
        ("--cv_data", arguments.cv_data),
        ("--checkpoint", arguments.checkpoint),
        ("--ref_model", arguments.ref_model),
        ("--qwen_pretrain_path", arguments.qwen_pretrain_path),
        ("--tokenizer_path", arguments.tokenizer_path),
    ):
        if uri and not storage.exists(uri):
            raise CosyFlowError(f"{option} {uri}: no such file or folder")


def _run(arguments: Arguments, gpus_per_node: int, log: Path) -> None:
    run_locally(MODULE, arguments.command_line(), gpus_per_node or _num_devices(), log)


def _num_devices() -> int:
    import torch

    return max(1, torch.cuda.device_count())


def _result(model_dir: str) -> StageResult:
    result: dict[str, Any] = storage.read_json(storage.join(model_dir, RESULT_FILE))
    weights = sorted(file.path for file in storage.list_files(model_dir) if file.path.endswith("_whole.pt"))
    files = [name for weight in weights for name in (weight, weight.removesuffix(".pt") + ".yaml")]
    first, last = result["first_epoch"], result["last_epoch"]
    details = {
        "train_loss_first": first.get("loss"),
        "train_loss_last": last.get("loss"),
        "cv_loss_first": first.get("cv_loss"),
        "cv_loss_last": last.get("cv_loss"),
        "cv_acc_last": last.get("cv_acc"),
        "cv_reward_acc_last": last.get("cv_reward_acc"),
        "tokens_per_second": result["tokens_per_second"],
        "device": f"{result['world_size']} x {result['device']}",
        "metrics": METRICS_FILE,
    }
    counts = {"epochs": result["epochs"], "updates": result["updates"], "checkpoints": len(weights)}
    return StageResult(
        counts,
        [*files, RESULT_FILE, METRICS_FILE],
        details={name: value for name, value in details.items() if value is not None},
        digest=storage.digest(storage.join(model_dir, f"{result['checkpoint']}.pt")),
    )
