"""Does a stage's work unless it is done already: equal work once, interrupted work goes on, deleted work is noticed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cosyflow import __version__, lease, provenance, storage
from cosyflow.content import Digests
from cosyflow.errors import CosyFlowError
from cosyflow.progress import say
from cosyflow.run import keys
from cosyflow.run.definition import Job, Stage
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from cosyflow.stage import LATEST, MANIFEST, Manifest, StageResult, digest_of, lost_files, measure
from cosyflow.storage.local import temporary_name

IMAGE_VARIABLE = "COSYFLOW_IMAGE"
RUN_VARIABLE = lease.RUN_VARIABLE
SKIPPED = "skipped"
NEWEST = "newest"


@dataclass(frozen=True)
class Work:
    """A stage's work on a subset or model in a run, and whether it is done.

    Attributes:
        settings: JSON values of what names it in addition to its inputs.
        inputs: manifests that go in.
        finished: the manifest of work that is whole and is what is asked for.
        problem: why work of this key that was finished once is not (a file is gone); "" when there is none.
    """

    stage: Stage
    name: str
    key: str
    folder: str
    settings: Mapping[str, Any]
    inputs: tuple[Manifest, ...]
    finished: Manifest | None
    problem: str = ""

    @property
    def label(self) -> str:
        return f"{self.stage.name} {self.name}"


def find_work(stage: Stage, record: Record, name: str, inputs: Sequence[Manifest], digests: Digests) -> Work:
    """Names the work, and looks whether it is done.

    Raises:
        CosyFlowError: the manifests are not those of the stage's inputs, in their order.
    """
    given = [manifest.stage for manifest in inputs]
    expected = list(stage.inputs) if stage.per != "run" else [stage.inputs[0]] * len(given)
    if given != expected:
        raise CosyFlowError(
            f"{stage.name} {name}: got the outputs of {', '.join(given) or 'nothing'},"
            f" it works on those of {', '.join(expected) or 'nothing'}"
        )
    if stage.per == "subset" and {manifest.name for manifest in inputs} - {name}:
        names = ", ".join(sorted({manifest.name for manifest in inputs}))
        raise CosyFlowError(f"{stage.name} {name}: got the outputs of {names}, it works on those of one subset")
    settings = keys.plain(stage.settings(record, name, digests))
    key = keys.key_of(stage.name, name, stage.version, settings, [manifest.digest for manifest in inputs])
    folder = storage.join(stage.place(record, name), key)
    return Work(stage, name, key, folder, settings, tuple(inputs), *_look(stage, record, folder))


def _look(stage: Stage, record: Record, folder: str) -> tuple[Manifest | None, str]:
    """The manifest of work that is whole and is what is asked for, or why work that was finished once is not."""
    found = stage.find(folder, record)
    if found is None:
        return None, ""
    reason = stage.accepts(found, record)  # refuses also what has lost files: doing it again would not help
    lost = lost_files(found) if is_read(stage, record) else []
    problem = f"{lost[0]} is gone from {found.uri}: makes it again" if lost else reason
    return None if problem else found, problem


def is_read(stage: Stage, record: Record) -> bool:
    """Whether a run makes a stage's outputs or reads their files. Of others the names in the manifest are enough."""
    readers = (each for each in STAGES.values() if stage.name in each.inputs)
    return stage.is_selected(record) or any(reader.is_selected(record) for reader in readers)


def execute(work: Work, record: Record, task_config: Mapping[str, Any] | None = None) -> Manifest:
    """The manifest of finished work, done now unless it was done before, or is done by somebody else meanwhile.

    Raises:
        OvertakenError: this process stood still for too long, and another one does the work.
        CosyFlowError: from the work.
    """
    if work.finished is not None:
        return _reused(work.finished, f"reused: {work.folder}")
    with lease.held(work.folder, work.label) as waited:
        found, problem = _look(work.stage, record, work.folder)
        if found is not None:
            return _reused(found, f"done by {waited or 'another run'} meanwhile: reuses {work.folder}")
        if problem:
            say(work.label, problem)
        if not work.stage.processes_outlive:
            _remove_leftovers(work.folder)
        storage.make_directory(work.folder)
        start = time.monotonic()
        result = work.stage.work(Job(record, work.name, work.inputs, work.folder, task_config))
        manifest = _describe(work, record, result, time.monotonic() - start)
        storage.write_text(storage.join(work.folder, MANIFEST), manifest.to_json())
    point_to(work, record, manifest)
    return manifest


def _reused(manifest: Manifest, message: str) -> Manifest:
    say(f"{manifest.stage} {manifest.name}", message)
    return replace(manifest, reused=True)


def _remove_leftovers(folder: str) -> None:
    """Removes what was being written when earlier attempts were killed; nobody else writes in the folder now."""
    if not storage.is_remote(folder):
        for inner, _, _ in os.walk(folder):
            if storage.name(inner) != storage.LEASES:
                storage.remove_unfinished(inner)


def point_to(work: Work, record: Record, manifest: Manifest) -> None:
    """Lets people find the newest output: `latest.json` next to the keys, and on this machine a link by recipe.

    The link is `<data root>/newest/<recipe>/<stage>/<subset or model>`.
    """
    storage.write_text(storage.join(work.stage.place(record, work.name), LATEST), manifest.to_json())
    if not storage.is_remote(work.folder):
        link = Path(record.run.data_root) / NEWEST / record.recipe_name / work.stage.name / work.name
        link.parent.mkdir(parents=True, exist_ok=True)
        unfinished = link.with_name(temporary_name(link.name))
        unfinished.symlink_to(os.path.relpath(work.folder, link.parent))
        unfinished.replace(link)


def skipped(stage: Stage, name: str) -> Manifest:
    """What stands for a stage that the run ends before: nothing was made."""
    return Manifest(stage.name, name, "", "", "", {}, {}, {}, {}, [], {SKIPPED: True}, 0.0, False)


def is_skipped(manifest: Manifest) -> bool:
    return manifest.details.get(SKIPPED) is True


def _describe(work: Work, record: Record, result: StageResult, seconds: float) -> Manifest:
    uris = {file: storage.join(work.folder, file) for file in sorted(result.files)}
    digests = {file: storage.digest(uri) for file, uri in uris.items()}
    return Manifest(
        stage=work.stage.name,
        name=work.name,
        key=work.key,
        uri=work.folder,
        digest=result.digest or digest_of(digests),
        counts=result.counts,
        files={file: storage.size(uri) for file, uri in uris.items()},
        folders={folder: measure(work.folder, folder) for folder in sorted(result.folders)},
        settings=dict(work.settings),
        inputs=[manifest.digest for manifest in work.inputs],
        details=result.details,
        seconds=round(seconds, 3),
        stand_ins=result.stand_ins or any(manifest.stand_ins for manifest in work.inputs),
        version=work.stage.version,
        sources=[manifest.uri for manifest in work.inputs],
        digests=digests,
        made_by=made_by(record),
        record=record.uri,
    )


def made_by(record: Record) -> dict[str, str]:
    """What code, image and run do the work."""
    run = os.environ.get(RUN_VARIABLE, "")
    found = {
        "cosyflow": __version__,
        "commit": provenance.git_commit(),
        "clean": provenance.git_is_clean(),
        "image": os.environ.get(IMAGE_VARIABLE, ""),
        "run": run,
        "url": f"{record.ui_url}/#/runs/details/{run}"
        if run and record.ui_url and not provenance.is_local(run)
        else "",
    }
    return {name: value for name, value in found.items() if value}
