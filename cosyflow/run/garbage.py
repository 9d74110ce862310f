"""What lies below a data root and nothing refers to: work of no run, and what killed processes have left.

What is kept: the newest work of each subset and model, by its `latest.json` and the links of `newest/`; all work of the
runs that have a record, or of those whose record is younger than an age that is asked for; registered versions; what
somebody works on; and all that any of these were made of. Only what CosyFlow itself has written is ever listed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cosyflow import storage
from cosyflow.content import Digests
from cosyflow.credentials import tracking_address
from cosyflow.errors import CosyFlowError
from cosyflow.lease import Claim, Holder, Records, is_live
from cosyflow.release.registry import folders_of_versions
from cosyflow.run.chain import walk
from cosyflow.run.ends import End, read_ends
from cosyflow.run.execute import NEWEST
from cosyflow.run.keys import KEY_LENGTH
from cosyflow.run.record import RECORDS, RUNS, Record
from cosyflow.run.stages import STAGES
from cosyflow.stage import LATEST, MANIFEST, Manifest, find_finished
from cosyflow.storage import FileInfo

PROBE = ".cosyflow-clock-probe"
UNIT = re.compile(rf"(?:[^/]+/)?(?:{'|'.join(map(re.escape, STAGES))})/[^/]+/[0-9a-f]{{{KEY_LENGTH}}}(?=/|$)")
"""The folder of one piece of work, relative to the data root: [VERSION/]STAGE/NAME/KEY."""
WORK = re.compile(rf"(?:{'|'.join(map(re.escape, STAGES))})/[^/]+/[0-9a-f]{{{KEY_LENGTH}}}$")
LEFT = re.compile(r"\..+\.[0-9a-f]{12}\.part|\..+\.(?:tar\.gz|unpacked)\.part")
"""Names of what a process leaves that is killed while it writes."""
WRITTEN_WITHIN_SECONDS = 3600.0
"""No single file takes longer."""
UNREFERRED = "no run, no newest link and no registered version refers to it"
UNFINISHED = "unfinished, and no run is known that would go on with it"
LEFT_BEHIND = "left by a process that was killed while it wrote"


@dataclass(frozen=True, order=True)
class Garbage:
    """A file, or a folder with all that is in it, that nothing refers to; `bytes` is its size."""

    uri: str
    bytes: int
    reason: str


@dataclass
class Root:
    """A data root as it is now.

    Attributes:
        units: the files of each piece of work, by its folder relative to the root.
        age_limit: seconds; what is younger is kept, and the records of older runs keep nothing. None: no limit.
        warnings: what could not be read, so that more is kept.
    """

    uri: str
    age_limit: float | None
    units: dict[str, list[FileInfo]] = field(default_factory=dict)
    others: list[FileInfo] = field(default_factory=list)
    finished: dict[str, Manifest] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    now: float = 0.0
    keeps_unfinished: bool = False

    @classmethod
    def read(cls, uri: str, age_limit: float | None) -> Root:
        if not storage.is_folder(uri):
            raise CosyFlowError(f"{uri}: no such folder; name the data root of your runs")
        root = cls(uri, age_limit, now=_now(uri))
        for file in storage.list_files(uri):
            found = UNIT.match(file.path)
            if found:
                root.units.setdefault(found.group(), []).append(file)
            else:
                root.others.append(file)
        for unit in root.units:
            manifest = find_finished(root.place(unit))
            if manifest is not None:
                root.finished[unit] = manifest
        return root

    def place(self, path: str) -> str:
        return storage.join(self.uri, path)

    def age(self, path: str) -> float:
        """Seconds since a file was written, by the clock of the store."""
        return self.now - storage.modified(self.place(path))

    def is_young(self, path: str) -> bool:
        return self.age_limit is not None and self.age(path) < self.age_limit

    def unit_of(self, uri: str) -> str:
        """The unit that a URI names, wherever its data root lay when it was written; "" when there is none."""
        found = WORK.search(storage.join(uri))
        return next((unit for unit in self.units if found and unit.endswith(found.group())), "")


def find_garbage(data_root: str, age_limit: float | None, mlflow_uri: str = "") -> tuple[list[Garbage], list[str]]:
    """Lists what nothing refers to, in the order of places, and warns of what could not be read.

    Args:
        age_limit: seconds; see `Root`.
        mlflow_uri: a registry, in addition to those in which the data root's `register` stages have registered models.

    Raises:
        CosyFlowError: there is no such folder, the store or the registry `mlflow_uri` does not answer.
    """
    root = Root.read(data_root, age_limit)
    kept = _with_sources(root, {*_referred(root), *_registered(root, mlflow_uri)})
    found = [*_unreferred_units(root, kept), *_unreferred_records(root, kept)]
    garbage = sorted([*found, *_leftovers(root, {each.uri for each in found})])
    return garbage, list(dict.fromkeys(root.warnings))


def remove(garbage: Garbage) -> bool:
    """Removes it, unless somebody has begun to work there. Returns whether it did."""
    if not storage.is_folder(garbage.uri):
        storage.remove(garbage.uri)
        return True
    if Claim(Records(garbage.uri), Holder("removal")).attempt() is None:
        return False
    storage.remove(garbage.uri)
    return True


def _now(data_root: str) -> float:
    probe = storage.join(data_root, PROBE)
    storage.write_text(probe, "")
    try:
        return storage.modified(probe)
    finally:
        storage.remove(probe)


def _referred(root: Root) -> Iterator[str]:
    """The units that links, records and runs name."""
    for file in root.others:
        if file.path.endswith(f"/{LATEST}"):
            newest = _read(root, file.path)
            if newest is not None:
                yield root.unit_of(storage.join(root.place(file.path.removesuffix(LATEST)), newest.key))
        elif file.path.startswith(f"{RECORDS}/") and file.path.endswith(".json") and _counts(root, file.path):
            yield from _work_of(root, file.path)
    if not storage.is_remote(root.uri):
        for folder, folders, _ in os.walk(root.place(NEWEST)):
            links = (Path(folder, name) for name in folders)
            yield from (root.unit_of(str(link.resolve())) for link in links if link.is_symlink())
    for run in {file.path.split("/")[1] for file in root.others if _is_of_run(file.path)}:
        files = [file.path for file in root.others if file.path.startswith(f"{RUNS}/{run}/")]
        if any(_counts(root, path) for path in files):
            yield from (root.unit_of(end.manifest["uri"]) for end in _ends(root, run) if end.manifest)


def _counts(root: Root, path: str) -> bool:
    """Whether a record, or what a run left, keeps the work that it names."""
    return root.age_limit is None or root.is_young(path)


def _is_of_run(path: str) -> bool:
    return path.startswith(f"{RUNS}/") and not path.startswith(f"{RECORDS}/") and path.count("/") == 2


def _read(root: Root, path: str) -> Manifest | None:
    try:
        return Manifest.read(root.place(path))
    except CosyFlowError as error:
        root.warnings.append(str(error))
        return None


def _ends(root: Root, run: str) -> list[End]:
    try:
        return read_ends(root.uri, run)[0]
    except (CosyFlowError, TypeError, KeyError) as error:
        root.warnings.append(f"{root.place(f'{RUNS}/{run}')}: cannot be read ({error})")
        return []


def _work_of(root: Root, path: str) -> Iterator[str]:
    """The units of a run, finished or not, by what names its work; where that cannot be read, those that name it."""
    name = storage.name(path)
    yield from (unit for unit, manifest in root.finished.items() if manifest.record.endswith(f"/{name}"))
    try:
        record = Record.read(root.place(path))
        for link in walk(record, Digests(record.digests, writes=False)):
            if link.work is not None:
                yield root.unit_of(link.work.folder)
    except CosyFlowError as error:
        root.keeps_unfinished = True
        root.warnings.append(
            f"{root.place(path)}: what it names cannot be read, so all unfinished work is kept ({error})"
        )


def _registered(root: Root, mlflow_uri: str) -> Iterator[str]:
    """The units that versions in the registries were made of. Where a registry does not answer, all of its are kept."""
    by_registry: dict[str, list[str]] = {}
    for unit, manifest in root.finished.items():
        if manifest.stage == "register":
            by_registry.setdefault(str(manifest.details.get("mlflow_uri", "")), []).append(unit)
    given = mlflow_uri or tracking_address()
    for address in dict.fromkeys([given, *by_registry]):
        if not address:
            continue
        try:
            yield from map(root.unit_of, folders_of_versions(address))
        except CosyFlowError as error:
            if address == mlflow_uri:
                raise
            root.warnings.append(f"{error}; keeps all that was registered there")
            yield from by_registry.get(address, [])


def _with_sources(root: Root, units: set[str]) -> set[str]:
    """Units, and all that they were made of."""
    kept: set[str] = set()
    waiting = [unit for unit in units if unit]
    while waiting:
        unit = waiting.pop()
        if unit not in kept:
            kept.add(unit)
            if unit in root.finished:
                waiting += filter(None, map(root.unit_of, root.finished[unit].sources))
    return kept


def _unreferred_units(root: Root, kept: set[str]) -> Iterator[Garbage]:
    for unit in root.units.keys() - kept:
        files = root.units[unit]
        reason, written = UNREFERRED, [f"{unit}/{MANIFEST}"]
        if unit not in root.finished:
            reason, written = UNFINISHED, [file.path for file in files]
        if unit not in root.finished and root.keeps_unfinished:
            continue
        if any(map(root.is_young, written)) or is_live(root.place(unit), root.now):
            continue
        yield Garbage(root.place(unit), sum(file.size for file in files), reason)


def _unreferred_records(root: Root, kept: set[str]) -> Iterator[Garbage]:
    """Records of which no work is there any more; all of them keep their work where no age is asked for."""
    if root.age_limit is None:
        return
    records = [root.finished[unit].record for unit in kept & root.finished.keys()]
    named = {storage.name(record) for record in records if record}
    for file in root.others:
        is_named = storage.name(file.path) in named
        if file.path.startswith(f"{RECORDS}/") and not is_named and not root.is_young(file.path):
            yield Garbage(root.place(file.path), file.size, "the record of a run whose work is not kept")


def _leftovers(root: Root, listed: set[str]) -> Iterator[Garbage]:
    """What killed processes were writing. A store never shows what is half-written."""
    if storage.is_remote(root.uri):
        return
    for folder, folders, files in os.walk(root.uri):
        unit = _unit_at(root, folder)
        if unit and (root.place(unit) in listed or is_live(root.place(unit), root.now)):
            folders.clear()
            continue
        for name in [*files, *(name for name in folders if LEFT.fullmatch(name))]:
            path = os.path.relpath(Path(folder, name), root.uri)
            if LEFT.fullmatch(name) and not _may_be_needed(root, path, unit):
                yield Garbage(root.place(path), _bytes(Path(folder, name)), LEFT_BEHIND)
        folders[:] = [name for name in folders if not LEFT.fullmatch(name)]


def _unit_at(root: Root, folder: str) -> str:
    found = UNIT.match(os.path.relpath(folder, root.uri))
    return found.group() if found else ""


def _may_be_needed(root: Root, path: str, unit: str) -> bool:
    if not unit and root.age(path) < WRITTEN_WITHIN_SECONDS:  # nobody holds a lease there
        return True
    begun = path.endswith(".tar.gz.part") and unit not in root.finished  # with which the next attempt goes on
    return begun or root.is_young(path)


def _bytes(path: Path) -> int:
    return sum(file.lstat().st_size for file in ([path] if not path.is_dir() else path.rglob("*")))
