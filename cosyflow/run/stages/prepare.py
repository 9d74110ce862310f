"""Stage 0, prepare: the Kaldi files of a subset."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace

from cosyflow import storage
from cosyflow.content import Digests, combine
from cosyflow.run.definition import Job, Stage
from cosyflow.run.record import Record
from cosyflow.run.speech_settings import limits_of
from cosyflow.run.stages.download import is_web, source_folder
from cosyflow.run.stages.rejects import too_many_rejects
from cosyflow.stage import StageResult


@dataclass(frozen=True)
class Settings:
    """In addition to the speech itself."""

    place: str
    """Where the speech lies, when that is not below the data root: the Kaldi files name it by its place."""
    instruct: str
    limits: dict[str, float] | None
    """What recordings may be like; None where only headers are looked at."""


def settings(record: Record, name: str, digests: Digests) -> Settings:
    url = record.data_url
    limits = limits_of(record.run)
    place = "" if is_web(url) else storage.join(url, name)
    return Settings(place, record.run.instruct, asdict(limits) if limits else None)


def work(job: Job) -> StageResult:
    from cosyflow.corpus.kaldi import WAV_SCP
    from cosyflow.corpus.prepare import prepare
    from cosyflow.corpus.rejects import REJECTS

    (downloaded,) = job.inputs
    run, source = job.record.run, source_folder(downloaded)
    made = prepare(
        source,
        job.output,
        instruct=run.instruct or None,
        max_reject_share=run.max_reject_share,
        limits=limits_of(run),
    )
    digests = {file: storage.digest(storage.join(job.output, file)) for file in made.files}
    # the files name the audio without its samples: what is made of it must know when those change, not where they lie
    for file in (WAV_SCP, REJECTS):
        text = storage.read_text(storage.join(job.output, file)).replace(f"{source}/", "")
        digests[file] = hashlib.sha256(text.encode()).hexdigest()
    digests["speech"] = downloaded.digest
    return replace(made, digest=combine(digests))


STAGE = Stage(
    name="prepare",
    number=0,
    per="subset",
    makes="kaldi_files",
    inputs=("download",),
    version=2,
    settings=settings,
    work=work,
    accepts=too_many_rejects,
    shared=True,
)
