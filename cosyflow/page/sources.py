"""What a run has left: its stages with their manifests, its settings, and the addresses where more is to be seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import TypeAdapter

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.provenance import is_local
from cosyflow.run.ends import PLAN, End, read_ends
from cosyflow.run.record import RUNS, Record
from cosyflow.run.report import in_order
from cosyflow.stage import MANIFEST, Manifest
from cosyflow.unexpected import reading

SUMMARY = "summary.json"
"""In the folder of a run on this machine."""


@dataclass(frozen=True)
class Sources:
    """A run as it is found."""

    uri: str
    """Its folder."""
    ends: Sequence[End]
    """Of its stages, in their order."""
    record: Record | None
    problems: Sequence[str] = field(default_factory=tuple)
    """What of it cannot be read."""

    @property
    def name(self) -> str:
        return storage.name(self.uri)

    def manifests(self, stage: str = "") -> list[Manifest]:
        """What its stages made or reused; of one stage, or of all."""
        found = [end.read_manifest() for end in self.ends if stage in ("", end.stage)]
        return [manifest for manifest in found if manifest is not None]

    @property
    def kubeflow(self) -> str:
        """The run's page in the Kubeflow UI; "" when it has none."""
        urls = [
            made.made_by.get("url", "")
            for made in self.manifests()
            if not made.reused and not is_local(made.made_by.get("run", ""))
        ]
        return next((url for url in reversed(urls) if url), "")


def read_sources(uri: str) -> Sources:
    """Reads a run.

    Args:
        uri: the folder of a run on this machine, with its summary.json; or `DATA_ROOT/runs/RUN`, local or s3://, where
            the tasks of every run leave how they ended.

    Raises:
        CosyFlowError: there is no such folder, or no run in it.
    """
    if not storage.is_folder(uri):
        raise CosyFlowError(f"{uri}: no such folder; name the folder of a run, or DATA_ROOT/{RUNS}/RUN")
    problems: list[str] = []
    if storage.exists(storage.join(uri, SUMMARY)):
        ends = list(_of_summary(storage.join(uri, SUMMARY), problems))
        record_uri = _newest_record(ends)
    else:
        ends, record_uri = _left_by_tasks(uri)
    return Sources(uri, in_order(ends), _record(record_uri, problems), problems)


def _left_by_tasks(uri: str) -> tuple[list[End], str]:
    runs = storage.parent(uri)
    named = [file.path for file in storage.list_files(uri) if file.path.endswith(".json")]
    if storage.name(runs) != RUNS or not named:
        raise CosyFlowError(
            f"{uri}: has neither a {SUMMARY} nor a {PLAN}.json; name the folder of a run, or DATA_ROOT/{RUNS}/RUN"
        )
    ends, record = read_ends(storage.parent(runs), storage.name(uri))
    return [end for end in ends if end.stage != PLAN or end.state == "failed"], record


def _of_summary(uri: str, problems: list[str]) -> Iterator[End]:
    """The ends of the stages of a summary; a manifest that is no longer there is a problem."""
    content = storage.read_json(uri)
    with reading(uri, "the summary of a run", "run it again"):
        stages: list[dict[str, Any]] = [dict(stage) for stage in content["stages"]]
        fields = ("stage", "name", "state", "seconds")
        ends = [
            TypeAdapter(End).validate_python({name: entry[name] for name in fields} | {"error": entry.get("error", "")})
            for entry in stages
        ]
        folders = [str(entry["uri"]) for entry in stages]
    for end, folder in zip(ends, folders, strict=True):
        manifest = None
        if folder:
            try:
                manifest = Manifest.read(storage.join(folder, MANIFEST))
            except CosyFlowError as error:
                problems.append(f"{end.stage} {end.name}: {error}")
        values = None if manifest is None else vars(manifest) | {"reused": end.state == "reused"}
        yield replace(end, manifest=values)


def _newest_record(ends: Sequence[End]) -> str:
    """The record of the last stage that was made, else of the last that was reused."""
    manifests = [(end.state == "made", manifest) for end in ends if (manifest := end.read_manifest()) is not None]
    for wanted in (True, False):
        for made, manifest in reversed(manifests):
            if made is wanted and manifest.record:
                return manifest.record
    return ""


def _record(uri: str, problems: list[str]) -> Record | None:
    if not uri:
        problems.append("the run's settings: none of its stages names them")
        return None
    try:
        return Record.read(uri)
    except CosyFlowError as error:
        problems.append(f"the run's settings: {error}")
        return None
