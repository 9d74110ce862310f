"""Stage 5, train: one part of a recipe, from the merged lists.

What makes its weights names a training's folder: data, model, objective, start weights, precision and optimizer. How
far and how it goes (epochs, logging, keeping, workers, devices, launcher) may change on the way.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import Field, asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from cosyflow import storage
from cosyflow.checkpoint.folder import checkpoint_at, has_weights, list_checkpoints
from cosyflow.config.options import LaunchOptions, TrainingOptions
from cosyflow.config.training import TrainConf
from cosyflow.content import Digests, combine
from cosyflow.credentials import IN_A_CLUSTER, is_withdrawn
from cosyflow.errors import CosyFlowError, Problem, RefusalError
from cosyflow.families import families, family
from cosyflow.families.family import Part
from cosyflow.families.parts import QWEN2_SIZES, QWEN2_TOKENIZER
from cosyflow.pretrained import how_to_get, is_stand_in
from cosyflow.provenance import RUN_TAGS_VARIABLE, is_local
from cosyflow.run.config import AUTO, Run
from cosyflow.run.definition import Job, Stage
from cosyflow.run.keys import differences, plain
from cosyflow.run.record import Record
from cosyflow.run.stages.merge import DEV_LIST, TRAIN_LIST
from cosyflow.run.stages.pretrained_files import in_pretrained, missing_file
from cosyflow.stage import Manifest, StageResult, find_finished, lost_files, manifest_of_progress

if TYPE_CHECKING:
    from cosyflow.training.arguments import Arguments

PROGRESS = ("max_epoch", "log_interval", "save_per_step", "keep_last", "keep_best")
"""Settings of train_conf that say how far a training goes and what is kept of it."""

ALL_DEVICES = -1
"""As `gpus_per_node`."""

RECIPE_FILE = "recipe.yaml"
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
"""Names of a text model's weights in a folder of Hugging Face's form; the first is that of the released ones."""


@dataclass(frozen=True)
class Settings:
    """What makes a training's weights, in addition to its data."""

    version: str
    part: str
    recipe: dict[str, Any]
    frames_of_1000_tokens: int | None
    """Of the flow that the vocoder's data are cut by."""
    options: dict[str, Any]
    """Those of `TrainingOptions` that have the effect "identity"."""
    start: dict[str, str]
    """Digests of what it starts from, by name."""


def settings(record: Record, name: str, digests: Digests) -> Settings:
    cut_by = part_of(record).cut_by
    return Settings(
        version=record.version,
        part=record.run.model,
        recipe=_recipe_settings(record),
        frames_of_1000_tokens=getattr(record.recipe, cut_by).mel_frames(1000) if cut_by else None,
        options=_identity_options(record),
        start=_start_digests(record, digests),
    )


def work(job: Job) -> StageResult:
    from cosyflow.launch.train_stage import launch

    record = job.record
    _point_to_earlier_training(job)
    recipe = storage.join(job.output, RECIPE_FILE)
    record.write_recipe(recipe)
    (lists,) = job.inputs
    arguments = arguments_of(record, lists.uri, job.output, recipe)
    os.environ[RUN_TAGS_VARIABLE] = json.dumps(_tags(record))
    options = LaunchOptions(**{entry.name: getattr(record.run, entry.name) for entry in fields(LaunchOptions)})
    _keep_manifest_of_fewer_epochs(job)
    made = launch(arguments, options, job.task_config)
    return replace(made, details={**made.details, "max_epoch": conf_of(record)[1].max_epoch})


def find(folder: str, record: Record) -> Manifest | None:
    """The manifest of the epochs asked for, if they were trained and all is still there; else the newest."""
    asked = storage.join(folder, _manifest_of(conf_of(record)[1].max_epoch))
    if storage.exists(asked):
        manifest = Manifest.read(asked)
        if not lost_files(manifest):
            return manifest
    finished = find_finished(folder)
    if finished is None:
        _refuse_fewer_epochs(folder, record)
    return finished


def _refuse_fewer_epochs(folder: str, record: Record) -> None:
    """An interrupted training cannot end before the epochs that it has behind it."""
    section, conf = conf_of(record)
    done = [checkpoint.epoch + 1 for checkpoint in list_checkpoints(folder) if checkpoint.is_whole_epoch]
    if done and max(done) > conf.max_epoch:
        text = (
            f"{conf.max_epoch}, but this training has {max(done)} epochs behind it ({folder}); ask for {max(done)} or"
            f" more, or change {section}.seed for a training of its own"
        )
        raise RefusalError([Problem(f"{section}.max_epoch", text)])


def accepts(manifest: Manifest, record: Record) -> str:
    """Whether a finished training went as far as is asked for.

    Raises:
        RefusalError: it went further, so that there is no model of so few epochs any more.
    """
    section, conf = conf_of(record)
    done, asked = int(manifest.details.get("max_epoch", 0)), conf.max_epoch
    if done > asked:
        text = (
            f"{asked}, but this training has gone on to {done} epochs ({manifest.uri}); ask for {done}, or change"
            f" {section}.seed for a training of its own"
        )
        raise RefusalError([Problem(f"{section}.max_epoch", text)])
    return f"trained for {done} of {asked} epochs so far: goes on" if done < asked else ""


def check(record: Record) -> Iterator[Problem]:
    run = record.run
    yield from _unread_settings(record)
    for setting in ("checkpoint", "qwen_pretrain_path", *(e.name for e in _identity() if e.metadata["place"])):
        uri = getattr(run, setting)
        if uri not in ("", AUTO) and not storage.exists(uri):
            yield Problem(setting, f"{uri}: no such file or folder; correct the path, or leave it empty")
        elif uri not in ("", AUTO) and setting != "qwen_pretrain_path" and _is_other_folder(setting, uri):
            yield Problem(setting, f"{uri}: is a folder; name a file of weights in it")
    if run.resume_from and storage.exists(run.resume_from) and not _has_state(run.resume_from):
        text = f"{run.resume_from}: not the checkpoint of a whole epoch with its state in the same folder; name another"
        yield Problem("resume_from", text)
    yield from _missing_pretrained(record)
    yield from _check_launch(record)
    from cosyflow.training.arguments import unsupported
    from cosyflow.training.engine.problems import Recipe, recipe_problems, share_problems

    arguments = arguments_of(record, "", "", "")
    yield from unsupported(arguments)
    section, conf = conf_of(record)
    yield from share_problems(conf, section, _processes(run))
    yield from recipe_problems(arguments, Recipe(conf, section, record.recipe_file))


def _is_other_folder(setting: str, uri: str) -> bool:
    """Whether it is a folder that a training cannot take weights from."""
    return storage.is_folder(uri) and (setting == "resume_from" or not has_weights(uri))


def _missing_pretrained(record: Record) -> Iterator[Problem]:
    """What the pretrained directory lacks: a tokenizer, a text model, or, to be warned of, weights to start from."""
    part, directory, checkpoint = part_of(record), record.run.pretrained_dir, _checkpoint(record)
    if not _qwen(record):
        yield from missing_file(record, family(record.version).text_tokenizer)
    elif record.run.qwen_pretrain_path == AUTO:
        needed = QWEN2_TOKENIZER if checkpoint else (*QWEN2_TOKENIZER, QWEN2_SIZES)
        for name in needed:
            yield from missing_file(record, storage.join(part.text_model, name))
        if not checkpoint and not any(in_pretrained(record, storage.join(part.text_model, name)) for name in WEIGHTS):
            yield from missing_file(record, storage.join(part.text_model, WEIGHTS[0]))
    if record.run.checkpoint == AUTO and not checkpoint and directory and not is_stand_in(directory):
        text = (
            f"{directory} has no {part.weights[0]}, so the {part.name} does not start from released weights;"
            f" {how_to_get(*part.weights, version=record.version)}, or leave checkpoint empty"
        )
        yield Problem("checkpoint", text, is_warning=True)


def pretrained_files(record: Record) -> tuple[str, ...]:
    """The weights that the training starts from, where they are those of the pretrained directory."""
    part = part_of(record)
    if record.run.checkpoint == AUTO and _checkpoint(record):
        return part.weights[:1]
    is_text_model = part.text_model and record.run.qwen_pretrain_path == AUTO
    return (storage.join(part.text_model, WEIGHTS[0]),) if is_text_model else ()


def _has_state(checkpoint: str) -> bool:
    found = checkpoint_at(checkpoint)
    return found is not None and found.is_whole_epoch and found.has_state


def conf_of(record: Record) -> tuple[str, TrainConf]:
    """The section of the recipe that says how the part is trained: its name and its settings."""
    return part_of(record).conf, record.recipe.conf_of(record.run.model)


def part_of(record: Record) -> Part:
    """The part that is trained."""
    return family(record.version).part(record.run.model)


def arguments_of(record: Record, lists: str, output: str, recipe: str) -> Arguments:
    """The options of the training's processes."""
    from cosyflow.training.arguments import Arguments

    run = record.run
    qwen = _qwen(record)
    chosen = {entry.name: getattr(run, entry.name) for entry in fields(TrainingOptions)}
    return Arguments(
        **{**chosen, "mlflow_uri": record.tracking},
        config=recipe,
        train_data=storage.join(lists, TRAIN_LIST) if lists else "",
        cv_data=storage.join(lists, DEV_LIST) if lists else "",
        model_dir=output,
        checkpoint=_checkpoint(record),
        qwen_pretrain_path=qwen,
        tokenizer_path="" if qwen else run.pretrained_dir,
        tensorboard_dir=storage.join(output, "tensorboard") if output else "",
        run_name=record.model_name,
    )


def _recipe_settings(record: Record) -> dict[str, Any]:
    part = part_of(record)
    sections = (*part.reads, *((part.preferences,) if part.preferences and record.run.dpo else ()))
    found: dict[str, Any] = {section: _plain(getattr(record.recipe, section)) for section in sections}
    for section, names in {**part.unread, **part.for_inference}.items():
        inner: Any = found
        for step in section.split("."):
            inner = inner[step]
        for name in names:
            inner.pop(name, None)
    for name in PROGRESS:
        found[conf_of(record)[0]].pop(name)
    return found


def _identity() -> list[Field[Any]]:
    """The options that name what is trained."""
    return [entry for entry in fields(TrainingOptions) if entry.metadata["effect"] == "identity"]


def _identity_options(record: Record) -> dict[str, Any]:
    run = record.run
    names = [entry.name for entry in _identity() if not entry.metadata["place"] and entry.name != "model"]
    # engines make equal weights, to rounding; the entry keeps the names of trainings from when only one was there
    return {"train_engine": "torch_ddp", **{name: getattr(run, name) for name in names}}


def _start_digests(record: Record, digests: Digests) -> dict[str, str]:
    """Digests of the weights and the tokenizer that the training starts from; what is not there is left out."""
    qwen = _qwen(record)
    places = {"checkpoint": _checkpoint(record), "qwen": qwen}
    places |= {entry.name: getattr(record.run, entry.name) for entry in _identity() if entry.metadata["place"]}
    if not record.run.dpo:
        places.pop("ref_model")
    if not qwen:
        places["tokenizer"] = in_pretrained(record, family(record.version).text_tokenizer)
    return {name: _digest(uri, digests) for name, uri in places.items() if uri}


def _digest(uri: str, digests: Digests) -> str:
    return combine(digests.tree(uri)) if storage.is_folder(uri) else digests.file(uri)


def _checkpoint(record: Record) -> str:
    if record.run.checkpoint != AUTO:
        return record.run.checkpoint
    return in_pretrained(record, part_of(record).weights[0])


def _qwen(record: Record) -> str:
    """The Qwen2 folder that the part starts from; "" where there is none or it is not read."""
    text_model = part_of(record).text_model
    if not text_model:
        return ""
    if record.run.qwen_pretrain_path != AUTO:
        return record.run.qwen_pretrain_path
    return in_pretrained(record, text_model)


def _unread_settings(record: Record) -> Iterator[Problem]:
    """Settings that were changed and that the chosen part does not read."""
    run = record.run
    part = part_of(record)
    parts = [each for one in families() for each in one.parts.values()]
    sections = {section for each in parts for section in (*each.reads, each.preferences)}
    read = {*part.reads, *((part.preferences,) if run.dpo else ()), part.cut_by}
    for override in run.overrides:
        key = override.partition("=")[0]
        section = key.partition(".")[0]
        inner, _, last = key.rpartition(".")
        is_unread = section in sections - read or last in part.unread.get(inner, ())
        if is_unread and section not in ("sample_rate", "token_frame_rate", "mel", "use_spk_embedding"):
            yield Problem(key, f"is not read where the {part.name} is trained; leave it out")
    if run.qwen_pretrain_path not in ("", AUTO) and not part.text_model:
        yield Problem("qwen_pretrain_path", f"is not read by the {part.name} of {record.version}; leave it out")
    if run.dpo and part.preferences and not run.reject_dir and run.start_stage <= 3:
        yield Problem("reject_dir", "dpo needs rejected speech in the shards; name the folder that has it")


def _check_launch(record: Record) -> Iterator[Problem]:
    from cosyflow.launch.kinds import KINDS
    from cosyflow.launch.places import kind_of, trains_here
    from cosyflow.launch.processes import devices_here
    from cosyflow.launch.settings import read_settings

    run = record.run
    if run.job:
        try:
            read_settings(run.job)
        except RefusalError as refusal:
            yield from refusal.problems
        except CosyFlowError as error:
            yield Problem("job", f"{error}; correct the file")
    if run.num_nodes != 1 and kind_of(run.launcher) is None:
        yield Problem("num_nodes", f"{run.num_nodes} machines need launcher {' or '.join(KINDS)}; here it is 1")
    if not trains_here(run.launcher):
        if run.launcher in KINDS and not storage.is_remote(run.data_root) and not run.job:
            yield Problem(
                "data_root",
                f"{run.data_root}: pods of a {run.launcher} cannot see a folder of this machine; give an s3:// prefix,"
                " or a job file that mounts it",
            )
        if is_withdrawn(record.tracking):
            text = f"{record.tracking} came with credentials, which pods are not given; take them out of it, and"
            yield Problem("mlflow_uri", f"{text} {IN_A_CLUSTER}")
        if run.gpus_per_node > 0:
            text = f"{run.gpus_per_node}; whether the cluster has {run.num_nodes} such machines cannot be seen here"
            yield Problem("gpus_per_node", text, is_warning=True)
        return
    if run.gpus_per_node > 0:
        devices = devices_here()
        if 0 < devices < run.gpus_per_node:
            yield Problem("gpus_per_node", f"{run.gpus_per_node}, this machine has {devices}; give at most {devices}")


def _processes(run: Run) -> int:
    """How many train, at the least: devices that cannot be seen here are counted by the training itself."""
    from cosyflow.launch.places import trains_here
    from cosyflow.launch.processes import devices_here

    asked = run.gpus_per_node
    devices = devices_here() if asked == ALL_DEVICES and trains_here(run.launcher) else asked
    return max(1, run.num_nodes) * max(1, devices)


def _point_to_earlier_training(job: Job) -> None:
    """Where a new training begins next to earlier ones of other settings: which differ, and how to go on from one."""
    from cosyflow.progress import say
    from cosyflow.run.chain import earlier_work

    if storage.exists(storage.join(job.output, RECIPE_FILE)):
        return
    found = earlier_work(STAGE, job.record, job.name)
    if found is None:
        return
    label = f"train {job.name}"
    here = plain(settings(job.record, job.name, Digests(job.record.digests)))
    differing = differences(here, found.settings) or ["its data"]
    say(label, f"a new training; the earlier one in {found.uri} differs in {'; '.join(differing)}")
    weights = max((file for file in found.files if file.endswith("_whole.pt")), key=_epoch, default="")
    if weights:
        place = storage.join(found.uri, weights)
        say(label, f"to start from its weights: --checkpoint {place}; with its whole state: --resume_from {place}")


def _epoch(file: str) -> int:
    return int(file.split("_")[1])


def _keep_manifest_of_fewer_epochs(job: Job) -> None:
    """A training's manifest at fewer epochs stays readable next to the one that it gets when it has gone on."""
    before = find_finished(job.output)
    if before is not None:
        # without the files that go on being written
        files = {name: size for name, size in before.files.items() if name.startswith("epoch_")}
        name = _manifest_of(int(before.details.get("max_epoch", 0)))
        storage.write_text(storage.join(job.output, name), replace(before, files=files).to_json())


def _manifest_of(epochs: int) -> str:
    return manifest_of_progress(f"{epochs}-epochs")


def _tags(record: Record) -> dict[str, str]:
    """Tags of the training's MLflow run."""
    from cosyflow.run.execute import made_by

    by = made_by(record)
    tags = {
        "recipe": record.recipe_name,
        "recipe_file": record.recipe_file,
        "settings_uri": record.uri,
        "kfp.pipeline_run_id": "" if is_local(by.get("run", "")) else by.get("run", ""),
        "kfp.pipeline_run_url": by.get("url", ""),
    }
    return {name: value for name, value in tags.items() if value}


def _plain(section: Any) -> Any:
    if hasattr(section, "__dataclass_fields__"):
        section = asdict(section)
    return json.loads(json.dumps(section))


STAGE = Stage(
    name="train",
    number=5,
    per="part",
    makes="checkpoints",
    inputs=("merge",),
    version=2,  # 2: an update is of the whole job, not of each process
    settings=settings,
    work=work,
    check=check,
    pretrained_files=pretrained_files,
    find=find,
    accepts=accepts,
    processes_outlive=True,
)
