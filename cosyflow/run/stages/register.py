"""Stage 7, register: the averaged and the exported model in the registry, with where they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from cosyflow import storage
from cosyflow.content import Digests
from cosyflow.credentials import TRACKING_VARIABLE
from cosyflow.errors import Problem
from cosyflow.run.config import FIELDS, default_of
from cosyflow.run.definition import Job, Stage
from cosyflow.run.record import Record
from cosyflow.run.stages.registry import lost_versions, why_unreachable
from cosyflow.stage import Manifest, StageResult

DECLARED_TAGS = {
    "retraining": "retraining",
    "content": "retraining_content",
    "commit": "retraining_commit",
    "repository": "retraining_repository",
}
"""Tags of a version, by what the run was declared as."""
EXPORTED_FORMS = {".zip": "torchscript", ".onnx": "onnx", ".pt": "generator"}


@dataclass(frozen=True)
class Settings:
    """The names in the registry, and which registry."""

    registered_model: str
    mlflow_uri: str


def settings(record: Record, name: str, digests: Digests) -> Settings:
    return Settings(record.run.registered_model or record.model_name, record.tracking)


def work(job: Job) -> StageResult:
    from cosyflow.release.history import tags_of
    from cosyflow.release.register import register_models
    from cosyflow.run.ends import run_id

    averaged, exported = job.inputs
    name = job.record.run.registered_model or job.record.model_name
    defaults = {entry: default_of(entry) for entry in FIELDS}
    tags = tags_of(averaged, exported, defaults)
    tags |= declared_tags(job.record.run.data_root, run_id())
    models = models_of(name, averaged, exported)
    return register_models(models, job.output, job.record.tracking, tags, stand_ins=averaged.stand_ins)


def declared_tags(data_root: str, run: str) -> dict[str, str]:
    """For a version: which Retraining, content, commit and repository a run is of; nothing for a run of somebody."""
    from cosyflow.run.ends import read_declared  # which knows the stages

    declared = read_declared(data_root, run)
    return {tag: declared[name] for name, tag in DECLARED_TAGS.items() if name in declared}


def check(record: Record) -> Iterator[Problem]:
    name = record.run.registered_model or record.model_name
    if "/" in name or ":" in name or name in (".", ".."):
        text = f"{name}: a registered model has no / and no : in its name; give another"
        yield Problem("registered_model", text)
    if not record.tracking:
        yield Problem("mlflow_uri", f"no model registry; give its address here or in {TRACKING_VARIABLE}")
        return
    trouble = why_unreachable(record.tracking)
    if trouble:
        yield Problem("mlflow_uri", f"{trouble}; start it, or give another address")


def accepts(manifest: Manifest, record: Record) -> str:
    """Versions can be deleted from a registry, and a registry can be begun anew."""
    if STAGE.is_beyond(record):
        return ""
    lost = lost_versions(record.tracking, manifest.details.get("versions", {}))
    return f"{lost[0]} is no longer in {record.tracking}: registers it again" if lost else ""


def models_of(name: str, averaged: Manifest, exported: Manifest) -> dict[str, str]:
    """Registered names and the files that they stand for.

    A form of export that has one file gives its name to it ("cosyvoice2-llm-onnx"), else each file gives its own
    ("cosyvoice2-flow-flow.encoder.fp16").
    """
    (weights,) = averaged.files
    models = {name: storage.join(averaged.uri, weights)}
    by_form: dict[str, list[str]] = {form: [] for form in EXPORTED_FORMS.values()}
    for file in sorted(exported.files):
        extension = PurePosixPath(file).suffix
        if extension in EXPORTED_FORMS:
            by_form[EXPORTED_FORMS[extension]].append(file)
    for form, files in by_form.items():
        for file in files:
            last = form if len(files) == 1 else PurePosixPath(file).stem
            models[f"{name}-{last}"] = storage.join(exported.uri, file)
    return models


STAGE = Stage(
    name="register",
    number=7,
    per="part",
    makes="registered_models",
    inputs=("average", "export"),
    version=1,
    settings=settings,
    work=work,
    check=check,
    accepts=accepts,
)
