"""Stage 1, speaker-embedding: CAM++ embeddings of a subset's utterances and speakers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cosyflow.content import Digests
from cosyflow.errors import Problem
from cosyflow.pretrained import SPEAKER_MODEL, locate
from cosyflow.run.definition import Job, Stage
from cosyflow.run.processes import num_processes
from cosyflow.run.record import Record
from cosyflow.run.stages.device import missing_device
from cosyflow.run.stages.pretrained_files import missing_file
from cosyflow.run.stages.rejects import too_many_rejects
from cosyflow.stage import StageResult


@dataclass(frozen=True)
class Settings:
    """Digest of the speaker model."""

    model: str


def settings(record: Record, name: str, digests: Digests) -> Settings:
    return Settings(digests.file(locate(record.run.pretrained_dir, SPEAKER_MODEL)))


def work(job: Job) -> StageResult:
    from cosyflow.extract.speaker_embedding import extract_speaker_embeddings

    (prepared,) = job.inputs
    run = job.record.run
    return extract_speaker_embeddings(
        prepared.uri,
        job.output,
        locate(run.pretrained_dir, SPEAKER_MODEL),
        num_processes=num_processes(run.num_processes),
        max_reject_share=run.max_reject_share,
        name=job.name,
        device=run.device,
    )


def check(record: Record) -> Iterator[Problem]:
    yield from missing_file(record, SPEAKER_MODEL)
    yield from missing_device(record)


def pretrained_files(record: Record) -> tuple[str, ...]:
    return (SPEAKER_MODEL,)


STAGE = Stage(
    name="speaker-embedding",
    number=1,
    per="subset",
    makes="embeddings",
    inputs=("prepare",),
    version=2,
    settings=settings,
    work=work,
    check=check,
    pretrained_files=pretrained_files,
    accepts=too_many_rejects,
    shared=True,
)
