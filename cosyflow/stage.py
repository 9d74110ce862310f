"""What a stage leaves: its outputs under `<data root>/<stage>/<name>/<key>/`, and last of all their `manifest.json`.

A folder without it is unfinished. What the key is made of, and when work is done, is defined in `cosyflow.run`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from cosyflow import storage
from cosyflow.errors import CosyFlowError, PlaceError

MANIFEST = "manifest.json"
LATEST = "latest.json"
"""Next to the keys of a subset or model: the newest finished manifest, for people."""


_KINDS: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "bool": bool,
    "int": int,
    "float": (int, float),
    "dict": dict,
    "list": list,
}


@dataclass(frozen=True)
class StageResult:
    """What a stage function made.

    Attributes:
        counts: numbers of things by name; a stage over utterances has `inputs`, `outputs` and `rejects`, which add up.
        files: the outputs that later stages read, relative to the output folder.
        details: whatever the run's summary should show (losses, rates, a model's version).
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


def _fits(value: Any, declared: str) -> bool:
    """Whether what a container holds has the declared type, one of those of a manifest's fields."""
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if declared.endswith("list[int]]"):
        return all(isinstance(entry, list) and all(isinstance(number, int) for number in entry) for entry in entries)
    kind = int | float if declared.endswith(", int]") else str if declared.endswith("str]") else object
    return all(isinstance(entry, kind) for entry in entries)


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
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CosyFlowError(f"{source}: not a manifest of a CosyFlow stage ({error})") from error
        return cls.of(values, source)

    @classmethod
    def of(cls, values: Any, source: str) -> Manifest:
        """The manifest with some values. Raises CosyFlowError, which names the source, when they cannot be one's."""
        try:
            manifest = cls(**values)
        except TypeError as error:
            raise CosyFlowError(f"{source}: not a manifest of a CosyFlow stage ({error})") from error
        for entry in fields(cls):
            value, kind = getattr(manifest, entry.name), _KINDS[str(entry.type).partition("[")[0]]
            if not (isinstance(value, kind) and _fits(value, str(entry.type))):
                raise CosyFlowError(f"{source}: not a manifest of a CosyFlow stage ({entry.name} is {value!r:.40})")
        return manifest

    @classmethod
    def read(cls, uri: str) -> Manifest:
        """Reads a manifest file. Raises CosyFlowError when it is absent or is not a manifest."""
        return cls.from_json(storage.read_text(uri), uri)


def find_finished(folder: str) -> Manifest | None:
    """The manifest in a stage's folder; None when there is none, or it is of CosyFlow 0.1 or damaged."""
    uri = storage.join(folder, MANIFEST)
    if not storage.exists(uri):
        return None
    try:
        return Manifest.read(uri)
    except PlaceError:
        raise
    except CosyFlowError:
        return None


def manifest_of_progress(progress: str) -> str:
    """The name under which a folder whose work goes on keeps its earlier manifest: `manifest.5-epochs.json`."""
    return MANIFEST.replace(".json", f".{progress}.json")


def earlier_manifest(folder: str, digest: str) -> Manifest | None:
    """The manifest with a digest of a folder whose work has gone on since; None when there was none."""
    for file in storage.list_files(folder):
        if re.fullmatch(r"manifest\..+\.json", file.path):
            manifest = Manifest.read(storage.join(folder, file.path))
            if manifest.digest == digest:
                return manifest
    return None


def lost_files(manifest: Manifest) -> list[str]:
    """Files and folders of a finished stage that are no longer there, or no longer whole."""
    lost = [name for name, size in manifest.files.items() if not _has_size(storage.join(manifest.uri, name), size)]
    return lost + [name for name, found in manifest.folders.items() if measure(manifest.uri, name) != found]


def _has_size(uri: str, size: int) -> bool:
    return storage.exists(uri) and storage.size(uri) == size


def measure(output: str, folder: str) -> list[int]:
    """Number of files below a folder, and their bytes."""
    files = storage.list_files(storage.join(output, folder))
    return [len(files), sum(file.size for file in files)]


def digest_of(digests: Mapping[str, str]) -> str:
    """One digest for the files of a stage, from theirs by name."""
    total = hashlib.sha256()
    for file, digest in sorted(digests.items()):
        total.update(f"{file}\0{digest}\0".encode())
    return total.hexdigest()
