"""How a stage keeps its promises: equal work is done once, interrupted work goes on, deleted work is noticed.

Outputs of a stage lie under `<data root>/<stage>/<name>/<key>/`. The key is made of the stage's inputs, its settings
and the code that makes it. `manifest.json` is written last: a folder without it is unfinished. `latest.json` beside the
keys names the newest finished one, which is what a run that leaves this stage out hands on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.progress import say

MANIFEST = "manifest.json"
LATEST = "latest.json"
KEY_LENGTH = 16


@dataclass(frozen=True)
class StageResult:
    """What a stage function made.

    Attributes:
        counts: numbers of things by name; a stage over utterances has `inputs`, `outputs` and `rejects`, which add up.
        files: the outputs that later stages read, relative to the output folder.
        details: whatever the run's summary should tell (losses, rates, a model's version).
        stand_ins: whether stand-in models took part, now or in an earlier stage.
        digest: identifies the outputs; by default it is computed from the contents of `files`.
        folders: folders of outputs that are too many to name one by one, relative to the output folder.
    """

    counts: dict[str, int]
    files: list[str]
    details: dict[str, Any] = field(default_factory=dict)
    stand_ins: bool = False
    digest: str | None = None
    folders: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if {"inputs", "outputs", "rejects"} <= self.counts.keys():
            inputs, outputs, rejects = (self.counts[name] for name in ("inputs", "outputs", "rejects"))
            if inputs != outputs + rejects:
                raise AssertionError(f"{inputs} inputs are not {outputs} outputs and {rejects} rejects")


@dataclass(frozen=True)
class Manifest:
    """A finished stage: what it made, from what, and where it lies. `name` is the subset or the model."""

    stage: str
    name: str
    key: str
    uri: str
    digest: str
    counts: dict[str, int]
    files: dict[str, int]  # bytes by name relative to uri
    folders: dict[str, list[int]]  # number of files and bytes by name relative to uri
    settings: dict[str, Any]
    inputs: list[str]  # digests of the manifests that went in
    details: dict[str, Any]
    seconds: float
    stand_ins: bool
    reused: bool = False
    version: int = 0
    """Of the code that made it (`cosyflow.run.stages`); 0 in data roots of CosyFlow 0.1."""
    sources: list[str] = field(default_factory=list)
    """The folders of the manifests that went in, in the order of `inputs`; theirs is `manifest.json` there."""
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of each of `files`."""
    made_by: dict[str, str] = field(default_factory=dict)
    """`cosyflow` (version), `commit`, `clean` ("true" or "false"), `image`, `run` and `url` (of a Kubeflow run)."""
    record: str = ""
    """URI of the run's record."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, source: str = "manifest") -> Manifest:
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise CosyFlowError(f"{source}: not a manifest of a CosyFlow stage ({error})") from error

    @classmethod
    def read(cls, uri: str) -> Manifest:
        """Reads a manifest file. Raises CosyFlowError when it is absent or is not a manifest."""
        return cls.from_json(storage.read_text(uri), uri)


def code_digest(modules: Sequence[str]) -> str:
    """SHA-256 over the Python sources of modules and packages, so that changed code does not hand on old outputs."""
    total = hashlib.sha256()
    for module in sorted(modules):
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(module)
        origin = Path(spec.origin)
        sources = sorted(origin.parent.rglob("*.py")) if spec.submodule_search_locations else [origin]
        for source in sources:
            total.update(str(source.relative_to(origin.parent)).encode() + b"\0" + source.read_bytes() + b"\0")
    return total.hexdigest()


def stage_key(stage: str, name: str, inputs: Sequence[str], settings: Mapping[str, Any], code: str) -> str:
    """The key of a stage's outputs: equal exactly when inputs (digests), settings and code are equal."""
    identity = json.dumps([stage, name, list(inputs), settings, code], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(identity.encode()).hexdigest()[:KEY_LENGTH]


def run_stage(
    stage: str,
    name: str,
    data_root: str,
    inputs: Sequence[Manifest],
    settings: Mapping[str, Any],
    active: bool,
    work: Callable[[str], StageResult],
    code: Sequence[str],
) -> Manifest:
    """Does a stage's work unless it is done already, and tells what there is.

    Args:
        stage: the stage's name, e.g. "speech-token".
        name: what it works on: a subset, or a model.
        data_root: folder or s3:// prefix of all stages.
        inputs: manifests of the earlier stages.
        settings: what changes the outputs, as JSON values. What does not (number of processes) stays out.
        active: False hands on the newest finished outputs without working.
        work: makes the outputs in the folder that it is given; called again with the same folder after an interruption.
        code: modules whose sources make the outputs.

    Raises:
        CosyFlowError: when inactive and there is nothing to hand on, or from `work`.
    """
    place = storage.join(data_root, stage, name)
    label = f"{stage} {name}".strip()
    if not active:
        manifest = _newest(stage, name, place)
        say(label, f"not in the range of stages: hands on {manifest.uri}")
        return replace(manifest, reused=True)

    digests = [manifest.digest for manifest in inputs]
    key = stage_key(stage, name, digests, settings, code_digest(code))
    output = storage.join(place, key)
    finished = storage.join(output, MANIFEST)
    if storage.exists(finished):
        before, problem = _finished_before(finished)
        if before is not None:
            say(label, f"done before: hands on {output}")
            storage.write_text(storage.join(place, LATEST), before.to_json())
            return replace(before, reused=True)
        say(label, f"{problem}: makes it again")
        storage.remove(finished)

    storage.make_directory(output)
    start = time.monotonic()
    result = work(output)
    sizes = {file: storage.size(storage.join(output, file)) for file in sorted(result.files)}
    manifest = Manifest(
        stage=stage,
        name=name,
        key=key,
        uri=output,
        digest=result.digest or _digest_files(output, result.files),
        counts=result.counts,
        files=sizes,
        folders={folder: _measure(output, folder) for folder in sorted(result.folders)},
        settings=dict(settings),
        inputs=digests,
        details=result.details,
        seconds=round(time.monotonic() - start, 3),
        stand_ins=result.stand_ins or any(manifest.stand_ins for manifest in inputs),
    )
    storage.write_text(finished, manifest.to_json())
    storage.write_text(storage.join(place, LATEST), manifest.to_json())
    return manifest


def _finished_before(uri: str) -> tuple[Manifest | None, str]:
    """The manifest of finished work that is still whole, or None and what is wrong with it."""
    try:
        manifest = Manifest.read(uri)
    except CosyFlowError as error:  # of an older layout, or damaged
        return None, str(error)
    lost = _lost_files(manifest)
    return (None, f"{lost[0]} is gone from {manifest.uri}") if lost else (manifest, "")


def _newest(stage: str, name: str, place: str) -> Manifest:
    latest = storage.join(place, LATEST)
    remedy = f"run the stage {stage} for {name or 'it'} first (start at an earlier stage)"
    if not storage.exists(latest):
        raise CosyFlowError(f"{latest}: no such file; {remedy}")
    manifest = Manifest.read(latest)
    lost = _lost_files(manifest)
    if lost:
        raise CosyFlowError(f"{storage.join(manifest.uri, lost[0])}: gone or of another size; {remedy}")
    return manifest


def _lost_files(manifest: Manifest) -> list[str]:
    """Files and folders of a finished stage that are no longer there, or no longer whole."""
    lost = [name for name, size in manifest.files.items() if not _has_size(storage.join(manifest.uri, name), size)]
    return lost + [name for name, measure in manifest.folders.items() if _measure(manifest.uri, name) != measure]


def _has_size(uri: str, size: int) -> bool:
    return storage.exists(uri) and storage.size(uri) == size


def _measure(output: str, folder: str) -> list[int]:
    """Number of files below a folder, and their bytes."""
    files = storage.list_files(storage.join(output, folder))
    return [len(files), sum(file.size for file in files)]


def _digest_files(output: str, files: Sequence[str]) -> str:
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(f"{file}\0{storage.digest(storage.join(output, file))}\0".encode())
    return total.hexdigest()
