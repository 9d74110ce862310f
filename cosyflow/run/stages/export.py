"""Stage 7, export: the averaged model in the forms that the official runtime reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cosyflow import storage
from cosyflow.content import Digests
from cosyflow.families import family
from cosyflow.run.definition import Job, Stage
from cosyflow.run.record import Record
from cosyflow.stage import StageResult


@dataclass(frozen=True)
class Settings:
    """The part, and its section of the recipe without what speaks to inference only, which is no part of a file."""

    version: str
    part: str
    config: dict[str, Any]


def settings(record: Record, name: str, digests: Digests) -> Settings:
    part = record.run.model
    config = asdict(getattr(record.recipe, part))
    for section, names in family(record.version).part(part).for_inference.items():
        inner = config
        for step in section.split(".")[1:]:
            inner = inner[step]
        for name in names:
            del inner[name]
    return Settings(record.version, part, config)


def work(job: Job) -> StageResult:
    from cosyflow.release.export import export_model

    (averaged,) = job.inputs
    part = job.record.run.model
    return export_model(job.record.recipe, part, storage.join(averaged.uri, f"{part}.pt"), job.output)


STAGE = Stage(
    name="export",
    number=7,
    per="part",
    makes="exported_model",
    inputs=("average",),
    version=2,
    settings=settings,
    work=work,
)
