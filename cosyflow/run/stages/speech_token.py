"""Stage 2, speech-token: discrete speech tokens of a subset's utterances."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cosyflow.content import Digests
from cosyflow.errors import Problem
from cosyflow.families import family
from cosyflow.pretrained import locate
from cosyflow.run.definition import Job, Stage
from cosyflow.run.processes import num_processes
from cosyflow.run.record import Record
from cosyflow.run.stages.device import missing_device
from cosyflow.run.stages.pretrained_files import missing_file
from cosyflow.run.stages.rejects import too_many_rejects
from cosyflow.stage import StageResult


@dataclass(frozen=True)
class Settings:
    """Digest of the speech tokenizer."""

    model: str


def settings(record: Record, name: str, digests: Digests) -> Settings:
    return Settings(digests.file(_tokenizer(record)))


def work(job: Job) -> StageResult:
    from cosyflow.extract.speech_token import extract_speech_tokens

    (prepared,) = job.inputs
    run = job.record.run
    return extract_speech_tokens(
        prepared.uri,
        job.output,
        _tokenizer(job.record),
        num_processes=num_processes(run.num_processes),
        max_reject_share=run.max_reject_share,
        name=job.name,
        device=run.device,
    )


def check(record: Record) -> Iterator[Problem]:
    yield from missing_file(record, family(record.version).speech_tokenizer.file)
    yield from missing_device(record)


def _tokenizer(record: Record) -> str:
    return locate(record.run.pretrained_dir, family(record.version).speech_tokenizer.file)


def pretrained_files(record: Record) -> tuple[str, ...]:
    return (family(record.version).speech_tokenizer.file,)


STAGE = Stage(
    name="speech-token",
    number=2,
    per="subset",
    makes="tokens",
    inputs=("prepare",),
    version=1,
    settings=settings,
    work=work,
    check=check,
    pretrained_files=pretrained_files,
    accepts=too_many_rejects,
)
