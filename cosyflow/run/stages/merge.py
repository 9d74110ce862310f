"""Stage 5, merge: the lists of training and validation shards."""

from __future__ import annotations

from dataclasses import dataclass

from cosyflow.content import Digests
from cosyflow.progress import say
from cosyflow.run.definition import Job, Stage
from cosyflow.run.record import Record
from cosyflow.stage import StageResult

TRAIN_LIST, DEV_LIST = "train.data.list", "dev.data.list"


@dataclass(frozen=True)
class Settings:
    """What each subset is for; a subset that is in neither goes into neither list."""

    train_subsets: tuple[str, ...]
    dev_subsets: tuple[str, ...]


def settings(record: Record, name: str, digests: Digests) -> Settings:
    return Settings(record.subsets.train, record.subsets.dev)


def work(job: Job) -> StageResult:
    from dataclasses import replace

    from cosyflow.content import combine
    from cosyflow.dataset.merge import merge_lists

    subsets = job.record.subsets
    made = merge_lists({shards.name: shards.uri for shards in job.inputs}, subsets.train, subsets.dev, job.output)
    counts = made.counts
    say(f"merge {job.name}", f"{counts['train_utterances']} to train on, {counts['dev_utterances']} to validate on")
    # of what is trained on, not of the places that the lists name
    uses = {"train": subsets.train, "dev": subsets.dev}
    found = {shards.name: shards.digest for shards in job.inputs}
    order = {f"{use}/{place}": found[subset] for use, names in uses.items() for place, subset in enumerate(names)}
    return replace(made, digest=combine(order))


STAGE = Stage(
    name="merge",
    number=5,
    per="run",
    makes="lists",
    inputs=("parquet",),
    version=1,
    settings=settings,
    work=work,
)
