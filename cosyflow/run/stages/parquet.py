"""Stage 3, parquet: a subset's utterances, embeddings and tokens as the shards that training reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from cosyflow import storage
from cosyflow.content import Digests, combine
from cosyflow.errors import Problem
from cosyflow.families import family
from cosyflow.run import keys
from cosyflow.run.config import AUTO
from cosyflow.run.definition import Job, Stage
from cosyflow.run.processes import num_processes
from cosyflow.run.record import Record
from cosyflow.run.stages.rejects import too_many_rejects
from cosyflow.stage import StageResult

if TYPE_CHECKING:
    from cosyflow.dataset.pitch import F0Method

REJECTED_TOKENS = "utt2speech_token.pt"


@dataclass(frozen=True)
class Settings:
    """What the shards hold, and how they are cut."""

    num_utts_per_parquet: int
    f0: str
    alignment: tuple[int, ...]
    """How audio is cut to its speech tokens: `cosyflow.dataset.alignment.Alignment.identity`, known without PyTorch."""
    rejected: str
    """Digest of the subset's rejected speech; "" when it has none."""


def settings(record: Record, name: str, digests: Digests) -> Settings:
    recipe, rejected = record.recipe, rejected_tokens(record.run.reject_dir, name)
    frames = recipe.flow.mel_frames(1000)
    return Settings(
        record.run.num_utts_per_parquet,
        f0_method(record),
        (recipe.sample_rate, recipe.mel.hop_size, recipe.token_frame_rate, frames),
        digests.file(rejected) if rejected else "",
    )


def work(job: Job) -> StageResult:
    from cosyflow.dataset.alignment import Alignment
    from cosyflow.dataset.parquet import make_parquet

    prepared, embeddings, tokens = job.inputs
    run = job.record.run
    rejected = rejected_tokens(run.reject_dir, job.name)
    made = make_parquet(
        prepared.uri,
        embeddings.uri,
        tokens.uri,
        job.output,
        num_utts_per_parquet=run.num_utts_per_parquet,
        num_processes=num_processes(run.num_processes),
        max_reject_share=run.max_reject_share,
        reject_token_dir=storage.parent(rejected) if rejected else None,
        alignment=Alignment.of(job.record.recipe),
        f0=f0_method(job.record),
    )
    # the shards' own digest knows the audio by its size and its place: of what they are made says more
    here = keys.plain(settings(job.record, job.name, Digests(job.record.digests)))
    inputs = [manifest.digest for manifest in job.inputs]
    return replace(made, digest=combine({"shards": keys.key_of(STAGE.name, "", STAGE.version, here, inputs)}))


def check(record: Record) -> Iterator[Problem]:
    run = record.run
    if run.reject_dir and not any(rejected_tokens(run.reject_dir, subset) for subset in record.subsets.every):
        yield Problem(
            "reject_dir",
            f"{run.reject_dir}: has no SUBSET/{REJECTED_TOKENS} for any of {', '.join(record.subsets.every)};"
            " make them first, or leave it empty",
        )


def f0_method(record: Record) -> F0Method:
    """How f0 is measured: `auto` is the official method where the vocoder is trained; nothing else reads it."""
    run = record.run
    if run.f0 != AUTO:
        return cast("F0Method", run.f0)
    return "harvest" if family(record.version).part(run.model).reads_f0 else "none"


def rejected_tokens(reject_dir: str, subset: str) -> str:
    """The file of a subset's rejected speech; "" when it has none."""
    uri = storage.join(reject_dir, subset, REJECTED_TOKENS) if reject_dir else ""
    return uri if uri and storage.exists(uri) else ""


STAGE = Stage(
    name="parquet",
    number=3,
    per="subset",
    makes="shards",
    inputs=("prepare", "speaker-embedding", "speech-token"),
    version=2,
    settings=settings,
    work=work,
    check=check,
    accepts=too_many_rejects,
)
