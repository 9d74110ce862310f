"""The train stage: one model of a recipe, trained by processes on this machine or by a job of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cosyflow import storage
from cosyflow.config.options import LAUNCHERS, LaunchOptions
from cosyflow.errors import Problem, RefusalError
from cosyflow.launch.job import train_in_cluster
from cosyflow.launch.kinds import KINDS
from cosyflow.launch.local import run_locally
from cosyflow.launch.places import kind_of
from cosyflow.launch.processes import devices_here, processes
from cosyflow.launch.settings import read_settings, with_task_config
from cosyflow.scratch import scratch_folder
from cosyflow.stage import StageResult
from cosyflow.training.arguments import Arguments, read_recipe, tracking_uri, unsupported
from cosyflow.training.engine.problems import Recipe, recipe_problems
from cosyflow.training.folder import check_folder
from cosyflow.training.tracking.mlflow import noted_run

MODULE = "cosyflow.training"
LOG_FILE = "train.log"
RESULT_FILE = "result.json"
METRICS_FILE = "metrics.jsonl"
DEFAULTS = LaunchOptions()


def launch(
    arguments: Arguments, options: LaunchOptions = DEFAULTS, task_config: Mapping[str, Any] | None = None
) -> StageResult:
    """Trains as the arguments say, and waits for the end.

    Args:
        arguments: of the training processes.
        options: where they run.
        task_config: what a KFP task was given for the pods, as the fields of `dsl.TaskConfig`.

    Raises:
        RefusalError: what is asked for is wrong or not there; nothing was started and nothing written.
        CosyFlowError: the training failed or was stopped.
    """
    kind = kind_of(options.launcher)
    num_processes = _check(arguments, options, in_cluster=kind is not None)
    if kind is None:
        with _log_file(arguments.model_dir) as log:
            run_locally(MODULE, arguments.command_line(), num_processes, log, on_cpu=options.gpus_per_node == 0)
        return _result(arguments)
    settings = with_task_config(read_settings(options.job), task_config or {})
    with _log_file(arguments.model_dir) as log:
        left = train_in_cluster(kind, arguments, settings, options.num_nodes, options.gpus_per_node, log)
    result = _result(arguments)
    return replace(result, files=[*result.files, *left])


def _check(arguments: Arguments, options: LaunchOptions, in_cluster: bool) -> int:
    """What can be said before any process is started: refuses, or gives the number of local processes."""
    problems = [*unsupported(arguments), *_missing_inputs(arguments)]
    try:
        if storage.exists(arguments.config):
            conf = read_recipe(arguments).conf_of(arguments.model)
            found = recipe_problems(arguments, Recipe(conf, arguments.section, arguments.config))
            problems += [problem for problem in found if not problem.is_warning]
            # a job may be there already, begun with resume none, and is then followed to its end
            check_folder(replace(arguments, resume="auto") if in_cluster else arguments, conf)
    except RefusalError as refusal:
        problems += refusal.problems
    if options.launcher not in LAUNCHERS:
        problems.append(Problem("launcher", f"{options.launcher} is not one of {', '.join(LAUNCHERS)}; take one"))
    if options.num_nodes < 1:
        problems.append(Problem("num_nodes", f"{options.num_nodes} is less than 1; give 1 or more"))
    if options.num_nodes > 1 and not in_cluster:
        problems.append(
            Problem(
                "num_nodes",
                f"{options.num_nodes} machines need launcher {' or '.join(KINDS)}; here give 1, or take that",
            )
        )
    if options.job and not storage.exists(options.job):
        problems.append(Problem("job", f"{options.job}: no such file; give the YAML file of the job's settings"))
    num_processes = 1
    try:
        here = 0 if in_cluster or options.gpus_per_node == 0 else devices_here()
        num_processes = processes(options.gpus_per_node, here)
    except RefusalError as refusal:
        problems += refusal.problems
    if problems:
        raise RefusalError(problems)
    return num_processes


@contextmanager
def _log_file(model_dir: str) -> Iterator[Path]:
    """A file for the output, which ends up in the model's folder, also when the body raises."""
    if not storage.is_remote(model_dir):
        yield Path(model_dir) / LOG_FILE
        return
    with scratch_folder() as folder:
        log = folder / LOG_FILE
        try:
            yield log
        finally:
            if log.exists():
                storage.write_bytes(storage.join(model_dir, LOG_FILE), log.read_bytes())


def _missing_inputs(arguments: Arguments) -> Iterator[Problem]:
    for name in ("config", "train_data", "cv_data", "checkpoint", "ref_model", "qwen_pretrain_path", "tokenizer_path"):
        uri = getattr(arguments, name)
        if uri and not storage.exists(uri):
            yield Problem(name, f"{uri}: no such file or folder; name one that is there")


def _result(arguments: Arguments) -> StageResult:
    model_dir = arguments.model_dir
    result: dict[str, Any] = storage.read_json(storage.join(model_dir, RESULT_FILE))
    names = {file.path for file in storage.list_files(model_dir)}
    weights = sorted(n for n in names if n.endswith("_whole.pt") and n.removesuffix(".pt") + ".yaml" in names)
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
        "data": result.get("data"),
        "mlflow_run_id": noted_run(model_dir, tracking_uri(arguments)),
    }
    counts = {"epochs": result["epochs"], "updates": result["updates"], "checkpoints": len(weights)}
    return StageResult(
        counts,
        [*files, RESULT_FILE, METRICS_FILE],
        details={name: value for name, value in details.items() if value is not None},
        digest=storage.digest(storage.join(model_dir, f"{result['checkpoint']}.pt")),
    )
