"""Files known by their content: SHA-256 digests, remembered so that a second look at the same files reads none of them.

A remembered digest holds as long as the file's fingerprint does (storage.Fingerprint): path, size, inode, time of
modification and time of change of a local file; key, size and ETag of an object. Neither an edit that keeps the size
nor `cp -p` or `touch -d` can hide behind an old digest. A local file that changed less than SETTLED_NS before it was
read is not remembered, since it could change again within the same tick of its file system's clock.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext, suppress
from contextvars import copy_context

from cosyflow import storage
from cosyflow.errors import CosyFlowError, MissingError, StoreError
from cosyflow.progress import Progress
from cosyflow.storage import Fingerprint

__all__ = ["Digests", "combine"]

SETTLED_NS = 2_000_000_000
"""File systems tick every few milliseconds, the coarsest ones (FAT) every two seconds."""
ATTEMPTS = 3
"""How often a file that changes while it is read is read."""
THREADS = 8
BATCH_FILES = 64
BATCH_BYTES = 64 << 20
LONG_FILES = 10_000
"""Number of unknown files, or of bytes, from which progress is shown."""
LONG_BYTES = 4 << 30
LISTED_FILES = 8
"""Number of objects of one folder of a store from which listing it is quicker than asking for each."""
MAGIC = "cosyflow digests 1"
ENDING = ".digests"
HEX_DIGITS = 64

Known = dict[str, tuple[Fingerprint, str]]
"""Relative path -> (fingerprint, digest)."""


def combine(digests: Mapping[str, str]) -> str:
    """One SHA-256, in hexadecimal, for names with their digests; the mapping's order does not matter."""
    parts = []
    for name in sorted(digests):
        raw = name.encode("utf-8", "surrogatepass")  # names of Linux need not be text
        parts.append(b"%d %b %b\n" % (len(raw), raw, digests[name].encode()))
    return hashlib.sha256(b"".join(parts)).hexdigest()


class Digests:
    """SHA-256 digests of files and folders by content, remembered so that a second look is quick.

    Args:
        cache: a folder or s3:// prefix for the memory, one file for each folder that was looked at; "" keeps it in this
            process only. A place that cannot be read or written costs the memory, not the work.
        writes: False leaves the memory as it is until `save`.

    Threads and processes may share a cache. Of two processes that write at once the last one's memory stays.
    """

    def __init__(self, cache: str = "", writes: bool = True) -> None:
        self._cache = _absolute(cache) if cache else ""
        self._writes = writes
        self._unsaved: set[str] = set()
        self._folders: dict[str, Known] = {}
        self._lock = threading.Lock()

    def file(self, uri: str) -> str:
        """The digest, in hexadecimal, of one local file or object. For many files, `files` is quicker.

        Raises:
            CosyFlowError: there is no such file, it cannot be read, or it goes on changing.
        """
        return self.files([uri])[uri]

    def files(self, uris: Sequence[str]) -> dict[str, str]:
        """The digests, in hexadecimal, of files that may lie anywhere, by the addresses given.

        Those of this machine, and those of each bucket, are remembered together with their nearest common folder.

        Raises:
            CosyFlowError: as `file` does.
        """
        paths = {uri: _absolute(uri) for uri in uris}
        digests: dict[str, str] = {}
        for folder, names in _by_common_folder(set(paths.values())).items():
            with self._lock:
                known = self._known(folder)
                found = self._digests(folder, _states(folder, names), known.keys() - names)
            digests.update((storage.join(folder, name), digest) for name, digest in found.items())
        return {uri: digests[path] for uri, path in paths.items()}

    def tree(self, folder: str) -> dict[str, str]:
        """Relative path -> digest, in hexadecimal, of each file below a folder at any depth, sorted by path.

        Symlinks to files and to folders are followed; a folder that lies within itself by a symlink is entered once.
        Unfinished files of storage.open_write and the files of this object's own memory are left out.

        Raises:
            CosyFlowError: there is no such folder, something below it is a dangling symlink, is neither file nor
                folder or cannot be read, or a file goes on changing.
        """
        folder = _absolute(folder)
        states = storage.fingerprints(folder)
        if not states and (storage.is_remote(folder) or not storage.exists(folder)):
            raise CosyFlowError(f"{folder} does not exist, or is no folder; check its address")
        states = {name: state for name, state in states.items() if not self._is_own(folder, name)}
        with self._lock:
            self._known(folder)
            return self._digests(folder, states, set())

    def save(self) -> None:
        """Remembers what was found so far, and from now on all that will be."""
        with self._lock:
            self._writes = True
            while self._unsaved:
                folder = self._unsaved.pop()
                self._save(folder, self._folders[folder])

    def _is_own(self, folder: str, name: str) -> bool:
        return bool(self._cache) and name.endswith(ENDING) and storage.parent(f"{folder}/{name}") == self._cache

    def _digests(self, folder: str, states: Mapping[str, Fingerprint], others: set[str]) -> dict[str, str]:
        """The digests of files in these states; `others` are remembered files whose states nobody has asked for."""
        known = self._known(folder)
        digests: dict[str, str] = {}
        unknown: dict[str, Fingerprint] = {}
        for name, state in states.items():
            entry = known.get(name)
            if entry is not None and entry[0] == state:
                digests[name] = entry[1]
            else:
                unknown[name] = state
        fresh: Known = {}
        try:
            for name, state, digest, settled in _read_all(folder, unknown):
                digests[name] = digest
                if settled:
                    fresh[name] = state, digest
        finally:  # when one file fails, those already read are worth remembering
            stale = known.keys() - states.keys() - others | (unknown.keys() & known.keys()) - fresh.keys()
            if fresh or stale:
                with suppress(CosyFlowError):  # a store that is out of reach drops nothing
                    stale |= others - _states(folder, others, missing_ok=True).keys()
                kept = {name: entry for name, entry in known.items() if name not in stale} | fresh
                self._folders[folder] = kept
                if self._writes:
                    self._save(folder, kept)
                else:
                    self._unsaved.add(folder)
        return {name: digests[name] for name in states}

    def _known(self, folder: str) -> Known:
        if folder not in self._folders:
            self._folders[folder] = self._load(folder)
        return self._folders[folder]

    def _memory(self, folder: str) -> str:
        name = hashlib.sha256(folder.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return storage.join(self._cache, f"{name}{ENDING}")

    def _load(self, folder: str) -> Known:
        if not self._cache:
            return {}
        try:
            with storage.impatient():
                return _unpack(folder, storage.read_bytes(self._memory(folder)))
        except (CosyFlowError, OSError, ValueError, KeyError, TypeError) as error:  # none yet, damaged or foreign
            logging.getLogger(__name__).info("%s: looks at all files anew: %s", folder, error)
            return {}

    def _save(self, folder: str, known: Known) -> None:
        if not self._cache:
            return
        try:
            with storage.impatient():
                storage.write_bytes(self._memory(folder), _pack(folder, known))
        except (CosyFlowError, OSError) as error:
            logging.getLogger(__name__).warning("digests are not remembered for the next run: %s", error)


def _absolute(uri: str) -> str:
    """The address without a slash at its end; for a local file an absolute path, whose symlinks are kept."""
    path = storage.join(uri)
    if storage.is_remote(path):
        if "//" in path.removeprefix("s3://"):
            raise CosyFlowError(f"{uri} has two slashes in a row, which no client can name reliably; rename the object")
        return path
    return "/" + path.lstrip("/") if path.startswith("/") else storage.join(os.getcwd(), path)  # noqa: PTH109


def _by_common_folder(paths: set[str]) -> dict[str, set[str]]:
    """Nearest common folder -> relative names: one folder for this machine, and one for each bucket."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        places["/".join(path.split("/", 3)[:3]) if storage.is_remote(path) else ""].append(path)
    groups = {}
    for place, members in places.items():
        folder = place + os.path.commonpath([path.removeprefix(place).rpartition("/")[0] or "/" for path in members])
        folder = folder.rstrip("/") if place else folder
        start = len(folder.rstrip("/")) + 1
        groups[folder] = {path[start:] for path in members}
    return groups


def _states(folder: str, names: set[str], missing_ok: bool = False) -> dict[str, Fingerprint]:
    """The states of files below a folder, in the order of their names."""
    found: dict[str, Fingerprint | None] = {}
    if storage.is_remote(folder):
        groups: dict[str, list[str]] = defaultdict(list)
        for name in names:
            groups[name.rpartition("/")[0]].append(name)
        for inner, group in groups.items():
            if len(group) >= LISTED_FILES:
                listed = storage.fingerprints(storage.join(folder, inner), deep=False)
                found.update((name, listed.get(name.rpartition("/")[2])) for name in group)
    rest = sorted(names - found.keys())
    uris = [storage.join(folder, name) for name in rest]
    if storage.is_remote(folder) and len(rest) > 1:
        with ThreadPoolExecutor(THREADS) as threads:
            asked = [threads.submit(copy_context().run, _state, uri, missing_ok) for uri in uris]
            found.update((name, answer.result()) for name, answer in zip(rest, asked, strict=True))
    else:
        found.update((name, _state(uri, missing_ok)) for name, uri in zip(rest, uris, strict=True))
    if not missing_ok and (missing := sorted(name for name, state in found.items() if state is None)):
        raise CosyFlowError(f"{storage.join(folder, missing[0])} does not exist; check its address")
    return {name: state for name, state in sorted(found.items()) if state is not None}


def _state(uri: str, missing_ok: bool) -> Fingerprint | None:
    try:
        return storage.fingerprint(uri)
    except CosyFlowError as error:
        if missing_ok and (isinstance(error, MissingError) or not isinstance(error, StoreError)):
            return None
        raise


def _read_all(folder: str, states: Mapping[str, Fingerprint]) -> Iterator[tuple[str, Fingerprint, str, bool]]:
    """(name, state, digest, whether the state vouches for the digest) of every file, as they are done."""
    if not states:
        return
    count, size = len(states), sum(state.size for state in states.values())
    is_long = count >= LONG_FILES or size >= LONG_BYTES
    shown = Progress(f"digests {folder}", count, "files") if is_long else nullcontext()
    with shown as progress, ThreadPoolExecutor(THREADS) as threads:
        reads = [threads.submit(copy_context().run, _read_batch, folder, batch) for batch in _batches(states)]
        try:
            for read in as_completed(reads):
                batch = read.result()
                yield from batch
                if progress is not None:
                    progress.update(len(batch))
        finally:
            threads.shutdown(cancel_futures=True)


def _batches(states: Mapping[str, Fingerprint]) -> Iterator[list[tuple[str, Fingerprint]]]:
    batch: list[tuple[str, Fingerprint]] = []
    size = 0
    for name, state in states.items():
        batch.append((name, state))
        size += state.size
        if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read_batch(folder: str, batch: Sequence[tuple[str, Fingerprint]]) -> list[tuple[str, Fingerprint, str, bool]]:
    return [(name, *_read(storage.join(folder, name), state)) for name, state in batch]


def _read(uri: str, before: Fingerprint) -> tuple[Fingerprint, str, bool]:
    for _ in range(ATTEMPTS):
        start = time.time_ns()
        try:
            digest = storage.digest(uri)
        except CosyFlowError as error:
            if isinstance(error.__cause__, PermissionError):
                raise CosyFlowError(f"{error}; give the right to read it (chmod +r), or remove it") from error
            raise
        after = storage.fingerprint(uri)
        if after == before:
            return after, digest, after.changed_ns < start - SETTLED_NS
        before = after
    raise CosyFlowError(f"{uri} changes while it is read; look again when nothing writes to it")


def _pack(folder: str, known: Known) -> bytes:
    names = sorted(known)
    states = [known[name][0] for name in names]
    columns = {
        "folder": folder,
        "names": names,
        "sizes": [state.size for state in states],
        "marks": [state.mark for state in states],
        "changed_ns": [state.changed_ns for state in states],
        "digests": "".join(known[name][1] for name in names),
    }
    body = json.dumps(columns, separators=(",", ":")).encode()
    return f"{MAGIC} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def _unpack(folder: str, data: bytes) -> Known:
    """What `_pack` packed for this folder; ValueError, KeyError or TypeError for anything else."""
    header, _, body = data.partition(b"\n")
    if header != f"{MAGIC} {hashlib.sha256(body).hexdigest()}".encode():
        raise ValueError("the memory of digests is damaged, or none")
    columns = json.loads(body)
    if columns["folder"] != folder:
        raise ValueError(f"the memory of digests is that of {columns['folder']}")
    joined = columns["digests"]
    digests = [joined[start : start + HEX_DIGITS] for start in range(0, len(joined), HEX_DIGITS)]
    states = map(Fingerprint, columns["sizes"], columns["marks"], columns["changed_ns"])
    return dict(zip(columns["names"], zip(states, digests, strict=True), strict=True))
