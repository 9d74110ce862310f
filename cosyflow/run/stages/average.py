"""Stage 6, average: the mean of the best checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cosyflow import storage
from cosyflow.content import Digests
from cosyflow.errors import Problem
from cosyflow.run.definition import Job, Stage
from cosyflow.run.record import Record
from cosyflow.run.stages.train import conf_of
from cosyflow.stage import Manifest, StageResult


@dataclass(frozen=True)
class Settings:
    """Which checkpoints are averaged."""

    average_num: int
    val_best: bool


def settings(record: Record, name: str, digests: Digests) -> Settings:
    return Settings(record.run.average_num, record.run.val_best)


def work(job: Job) -> StageResult:
    from cosyflow.release.average import average_model

    (trained,) = job.inputs
    run = job.record.run
    made = storage.join(job.output, f"{run.model}.pt")
    # the training may have gone on to more epochs since, in the same folder
    return average_model(trained.uri, made, run.average_num, run.val_best, among=trained.files)


def check(record: Record) -> Iterator[Problem]:
    run, (section, conf) = record.run, conf_of(record)
    kept, setting = (conf.keep_best, "keep_best") if run.val_best else (conf.keep_last, "keep_last")
    if run.average_num > kept:
        yield Problem(
            "average_num",
            f"{run.average_num} is more than the {kept} checkpoints of {section}.{setting};"
            f" set {section}.{setting}={run.average_num}, or average fewer",
        )
    elif run.average_num > conf.max_epoch:
        yield Problem(
            "average_num",
            f"{run.average_num} is more than the {conf.max_epoch} epochs of {section}.max_epoch; average fewer, or"
            " train longer",
        )


def check_inputs(record: Record, inputs: tuple[Manifest, ...]) -> Iterator[Problem]:
    """Of a finished training fewer checkpoints may have been kept than are to be averaged."""
    (trained,) = inputs
    kept = sum(file.endswith("_whole.pt") for file in trained.files)
    if kept < record.run.average_num:
        text = f"{record.run.average_num}, but of this training {kept} are kept ({trained.uri}); average {kept}"
        yield Problem("average_num", f"{text}, or train longer with a larger {conf_of(record)[0]}.keep_best")


STAGE = Stage(
    name="average",
    number=6,
    per="part",
    makes="averaged_model",
    inputs=("train",),
    version=1,
    settings=settings,
    work=work,
    check=check,
    check_inputs=check_inputs,
)
