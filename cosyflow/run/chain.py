"""The chain of a run: every stage's work, from the download to the registry, found by what it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cosyflow import storage
from cosyflow.content import Digests
from cosyflow.errors import CosyFlowError, PlaceError
from cosyflow.run.definition import Stage
from cosyflow.run.execute import Work, find_work
from cosyflow.run.keys import differences, plain
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from cosyflow.stage import LATEST, Manifest


@dataclass(frozen=True)
class Link:
    """A stage's work on a subset or model in a run. `work` is None as long as what goes in is not finished."""

    stage: Stage
    name: str
    work: Work | None

    @property
    def finished(self) -> Manifest | None:
        return self.work.finished if self.work else None

    @property
    def label(self) -> str:
        return f"{self.stage.name}/{self.name}"


def walk(record: Record, digests: Digests) -> list[Link]:
    """All links of a run, in the order of the stages.

    Raises:
        CosyFlowError: what names a stage's work cannot be read, or finished work must not be reused.
    """
    found: dict[tuple[str, str], Link] = {}
    for stage in STAGES.values():
        for name in stage.names(record):
            before = [found[one.name, subset] for one, subset in inputs_of(stage, name, record)]
            manifests = [link.finished for link in before]
            known = [manifest for manifest in manifests if manifest is not None]
            work = None
            if len(known) == len(manifests):
                try:
                    work = find_work(stage, record, name, known, digests)
                except CosyFlowError:
                    if not stage.is_beyond(record):  # what the run ends before need not be there
                        raise
            found[stage.name, name] = Link(stage, name, work)
    return list(found.values())


def inputs_of(stage: Stage, name: str, record: Record) -> Iterator[tuple[Stage, str]]:
    """The stages, with what each works on, whose outputs go into a stage's work."""
    for before in map(STAGES.__getitem__, stage.inputs):
        if before.per == stage.per:
            yield before, name
        elif before.per == "subset":  # those that are in neither list do not go into the model
            yield from ((before, subset) for subset in (*record.subsets.train, *record.subsets.dev))
        else:
            yield from ((before, other) for other in before.names(record))


def describe_keys(record: Record, digests: Digests) -> dict[str, dict[str, Any]]:
    """`{STAGE/NAME: {key, version, settings, inputs}}`, with None for what is not yet known."""
    described = {}
    for link in walk(record, digests):
        work = link.work
        described[link.label] = {
            "key": work.key if work else None,
            "version": link.stage.version,
            "settings": dict(work.settings) if work else _settings(link, record, digests),
            "inputs": [manifest.digest for manifest in work.inputs] if work else None,
        }
    return described


def _settings(link: Link, record: Record, digests: Digests) -> dict[str, Any] | None:
    try:
        return plain(link.stage.settings(record, link.name, digests))
    except CosyFlowError:  # a file that names it is not there
        return None


def why_broken(link: Link, record: Record, digests: Digests) -> str:
    """Why a stage outside the range has nothing that can be reused: what there is instead, and what differs."""
    place = link.stage.place(record, link.name)
    remedy = f"start at stage {link.stage.number} ({link.stage.name}), or earlier"
    if link.work is None:
        return f"{link.label}: its own inputs are not finished; {remedy}"
    if link.work.problem:
        return f"{link.label}: {link.work.problem.rpartition(':')[0]} ({link.work.folder}); {remedy}"
    other = earlier_work(link.stage, record, link.name)
    if other is None:
        return f"{storage.join(place, link.work.key)}: nothing finished there, nor for other settings; {remedy}"
    here = plain(link.stage.settings(record, link.name, digests))
    differing = differences(here, other.settings)
    if other.inputs != [manifest.digest for manifest in link.work.inputs]:
        differing += [
            f"{manifest.stage}: {manifest.uri}, there {source}"
            for manifest, source in zip(link.work.inputs, [*other.sources, *[""] * len(link.work.inputs)], strict=False)
            if manifest.uri != source
        ] or ["what goes in"]
    if other.version != link.stage.version:
        differing.append(f"version of the code: {link.stage.version}, there {other.version}")
    return (
        f"{link.label}: this run needs {storage.join(link.work.folder, 'manifest.json')}, there is"
        f" {storage.join(other.uri, 'manifest.json')}, which differs in {'; '.join(differing)}; {remedy}, or use those"
        " settings"
    )


def earlier_work(stage: Stage, record: Record, name: str) -> Manifest | None:
    """The newest finished work of a stage on a subset or model, whatever its settings; None when there is none."""
    uri = storage.join(stage.place(record, name), LATEST)
    if not storage.exists(uri):
        return None
    try:
        return Manifest.read(uri)
    except PlaceError:
        raise
    except CosyFlowError:
        return None
