"""The links from a registered version back to the archives, and whether what they name is still there as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cosyflow import storage
from cosyflow.content import Digests
from cosyflow.corpus.source import folder_digest
from cosyflow.errors import CosyFlowError
from cosyflow.progress import Progress
from cosyflow.release.history import read_chain, replaced
from cosyflow.release.registry import MANIFEST_TAG, REGISTERED_FROM_TAG, Version
from cosyflow.stage import MANIFEST, Manifest, digest_of, find_finished, measure

SOURCE = "source"
"""In the details of a download that uses a folder of one's own in place."""


def chain_of(version: Version) -> list[Manifest]:
    """The manifests that a version was made of, register first.

    Raises:
        CosyFlowError: the version does not say where it was registered from, or a manifest is gone.
    """
    folder = version.tags.get(REGISTERED_FROM_TAG) or version.tags.get(MANIFEST_TAG)
    if not folder:
        raise CosyFlowError(
            f"{version.name} version {version.version}: has no tag {REGISTERED_FROM_TAG}, so it is not known what it"
            " was made of; CosyFlow 0.1 or something else registered it"
        )
    return read_chain(folder)


def link(manifest: Manifest) -> dict[str, Any]:
    """A manifest as a link of a lineage: `inputs` are the digests of the links that went in."""
    return {name: getattr(manifest, name) for name in ("stage", "name", "key", "digest", "uri", "inputs")}


def depths(chain: Sequence[Manifest]) -> list[int]:
    """How far each manifest of a chain is from its first: the most steps that lead to it."""
    depth = {manifest.uri: 0 for manifest in chain}
    for manifest in chain:  # each stands after all that were made of it
        for source in map(storage.join, manifest.sources):
            depth[source] = max(depth[source], depth[manifest.uri] + 1)
    return list(depth.values())


def origin(manifest: Manifest) -> list[str]:
    """Where the speech of a download came from, as lines for people; none for another stage."""
    if manifest.stage != "download":
        return []
    details, counts = manifest.details, manifest.counts
    if folder := details.get(SOURCE):
        return [f"folder {folder}  {counts.get('files')} files, {counts.get('bytes')} bytes"]
    address = details.get("archive") or details.get("url", "unknown")
    sums = {"sha256": details.get("sha256") or manifest.digest, "md5": details.get("md5")}
    return [f"archive {address}", *(f"{kind} {text}" for kind, text in sums.items() if text)]


def replacements(chain: Sequence[Manifest]) -> Iterator[str]:
    """Manifests that lie where an input of another lay, and are not that input."""
    by_uri = {manifest.uri: manifest for manifest in chain}
    for manifest in chain:
        for folder, digest in zip(manifest.sources, manifest.inputs, strict=True):
            source = by_uri[storage.join(folder)]
            if source.digest != digest:
                yield replaced(manifest, source, digest)


def verify(version: Version, chain: Sequence[Manifest]) -> list[str]:
    """Reads every file of a chain and compares it with its manifest. Returns what differs or is gone, a line each."""
    problems = [*_false_tags(version.tags, chain), *replacements(chain)]
    records = {manifest.record: None for manifest in chain if manifest.record}
    problems += [f"{record}: gone" for record in records if not storage.exists(record)]
    with Progress("verify", len(chain), "links", sys.stderr) as progress:
        for manifest in chain:
            problems += _differences(manifest)
            progress.update()
    return problems


def _false_tags(tags: Mapping[str, str], chain: Sequence[Manifest]) -> Iterator[str]:
    for tag, stage in (("data_digest", "merge"), ("model_digest", "average")):
        digests = {manifest.digest for manifest in chain if manifest.stage == stage}
        if tag in tags and tags[tag] not in digests:
            yield f"tag {tag}: {tags[tag]} is not {', '.join(sorted(digests)) or 'there'}, the digest of {stage}"


def _differences(manifest: Manifest) -> Iterator[str]:
    whole = True
    pruned = _pruned(manifest)
    for file, size in manifest.files.items():
        if file in pruned:
            continue
        problem = _difference(storage.join(manifest.uri, file), size, manifest.digests.get(file))
        if problem:
            whole = False
            yield problem
    if manifest.files and not manifest.digests and whole:
        found = digest_of({file: storage.digest(storage.join(manifest.uri, file)) for file in manifest.files})
        if found != manifest.digest:
            place = storage.join(manifest.uri, MANIFEST)
            yield f"{place}: the files have the digest {found}, not {manifest.digest}"
    for folder, expected in manifest.folders.items():
        found_measure = measure(manifest.uri, folder)
        if found_measure != expected:
            yield _sizes(storage.join(manifest.uri, folder), found_measure, expected)
    used = manifest.details.get(SOURCE)
    if used and {"files", "bytes"} <= manifest.counts.keys():
        expected = [manifest.counts["files"], manifest.counts["bytes"]]
        found_measure = measure(used, "")
        if found_measure != expected:
            yield _sizes(used, found_measure, expected)
        elif (found := folder_digest(used, Digests())) != manifest.digest:
            yield f"{used}: differs: the speech has the digest {found}, not {manifest.digest}"


def _pruned(manifest: Manifest) -> set[str]:
    """Checkpoints that a training which has gone on since no longer keeps."""
    newest = find_finished(manifest.uri)
    if manifest.stage != "train" or newest is None or newest.digest == manifest.digest:
        return set()
    return {file for file in manifest.files if not storage.exists(storage.join(manifest.uri, file))}


def _difference(uri: str, size: int, digest: str | None) -> str:
    """What is wrong with a file; "" when it is as it was."""
    if not storage.exists(uri):
        return f"{uri}: gone"
    found_size = storage.size(uri)
    if found_size != size:
        return f"{uri}: differs: {found_size} bytes, not {size}"
    found = storage.digest(uri) if digest else digest
    return f"{uri}: differs: SHA-256 {found}, not {digest}" if found != digest else ""


def _sizes(place: str, found: Sequence[int], expected: Sequence[int]) -> str:
    if not found[0]:
        return f"{place}: gone"
    return f"{place}: differs: {found[0]} files of {found[1]} bytes, not {expected[0]} of {expected[1]}"
