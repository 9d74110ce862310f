"""What a model was made of: the chain of manifests from a release back to the archives, and the tags that name it.

Every manifest names the folders of those that went in (`sources`) with the digests that they had then (`inputs`), so
that from any of them the way leads back to the downloads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from cosyflow import storage
from cosyflow.errors import CosyFlowError, MissingError, StoreError
from cosyflow.provenance import is_local
from cosyflow.release.registry import MANIFEST_TAG
from cosyflow.stage import MANIFEST, Manifest, earlier_manifest

STAND_INS_TAG = "cosyflow.stand_ins"
RUN_TAG = "mlflow_run_id"
UNKNOWN = "unknown"
LONGEST_TAG = 65_535
"""Bytes. MLflow itself takes 100,000 characters, but its server on MySQL has a TEXT column, which holds this much."""


def tags_of(averaged: Manifest, exported: Manifest, defaults: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The tags of a model's registered versions: by whom and of what it was made. What is not known has no tag.

    Commit, run and start are those of the training, which made the weights; settings and recipe are those of the run
    that averaged them, which names the same training.

    Args:
        averaged: the manifest of the averaged model.
        exported: the manifest of its exports.
        defaults: of the run's settings; the tag `settings` has those that differ. None: all of them.

    Raises:
        CosyFlowError: the manifest of the training or of its lists, or the record, is gone or is another one by now.
    """
    trained = read_source(averaged, 0)
    merged = read_source(trained, 0)
    made_by = trained.made_by
    record_uri = averaged.record or trained.record
    record = read_record(record_uri) if record_uri else {}
    start = trained.settings.get("start")
    images = by_stage(chain_from([exported, averaged], tolerant=True), "image")
    tags = {
        "git_commit": made_by.get("commit") or UNKNOWN,
        "git_clean": made_by.get("clean", ""),
        "images": _text(images) if images else "",
        "kfp_run_id": "" if is_local(made_by.get("run", "")) else made_by.get("run", ""),
        "kfp_run_url": made_by.get("url", ""),
        RUN_TAG: str(trained.details.get(RUN_TAG) or ""),
        "recipe": _recipe_name(record),
        "recipe_digest": digest_of(record["recipe"]) if "recipe" in record else "",
        "data_digest": merged.digest,
        "start_digest": _text(start) if isinstance(start, Mapping) else "",
        "model_digest": averaged.digest,
        "settings_uri": record_uri,
        "settings": _text(_not_default(record, defaults or {})) if "run" in record else "",
        STAND_INS_TAG: "true" if averaged.stand_ins else "false",
        MANIFEST_TAG: averaged.uri,
    }
    return {name: text for name, text in tags.items() if text and len(text.encode()) <= LONGEST_TAG}


def read_chain(folder: str) -> list[Manifest]:
    """The manifest in a folder and all that it was made of, each before those that went into it.

    The inputs of one manifest stand in their order, the whole chain of one before the next; each stands once.

    Raises:
        CosyFlowError: a manifest is gone, or does not name the folders of its inputs; the message names it.
    """
    return chain_from([_read(folder, "")])


def chain_from(starts: Sequence[Manifest], tolerant: bool = False) -> list[Manifest]:
    """As `read_chain`, from manifests that are at hand. `tolerant` leaves out what is gone."""
    finished: dict[str, Manifest] = {}
    seen: set[str] = set()

    def visit(manifest: Manifest) -> None:
        seen.add(manifest.uri)
        if not tolerant:
            _check_sources(manifest)
        for source, digest in reversed(list(zip(manifest.sources, manifest.inputs, strict=False))):
            if _plain(source) in seen:
                continue
            try:
                made = _read(source, _label(manifest), digest)
            except CosyFlowError as error:
                is_gone = isinstance(error, MissingError) or not isinstance(error, StoreError)
                if not tolerant or not is_gone:
                    raise
                continue
            visit(made)
        finished[manifest.uri] = manifest

    for start in reversed(starts):
        if _plain(start.uri) not in seen:
            visit(replace(start, uri=_plain(start.uri)))
    return list(reversed(finished.values()))


def read_source(manifest: Manifest, index: int) -> Manifest:
    """One of the manifests that went into another.

    Raises:
        CosyFlowError: it is gone, or its outputs are no longer those that went in.
    """
    _check_sources(manifest)
    if index >= len(manifest.sources):
        raise CosyFlowError(f"{storage.join(manifest.uri, MANIFEST)}: names no input of {_label(manifest)}")
    source = _read(manifest.sources[index], _label(manifest), manifest.inputs[index])
    if source.digest != manifest.inputs[index]:
        raise CosyFlowError(replaced(manifest, source, manifest.inputs[index]))
    return source


def replaced(manifest: Manifest, source: Manifest, digest: str) -> str:
    """The problem when `manifest` was made of outputs with `digest`, and `source` in that place has others now."""
    place = storage.join(source.uri, MANIFEST)
    return f"{place}: digest {source.digest} is not {digest}, of which {_label(manifest)} was made"


def read_record(uri: str) -> dict[str, Any]:
    """The record of a run: its settings as `run`, its whole recipe as `recipe`."""
    if not storage.exists(uri):
        raise CosyFlowError(f"{uri}: the record of the run is gone; without it the run's settings are unknown")
    record = storage.read_json(uri)
    if not isinstance(record, dict):
        raise CosyFlowError(f"{uri}: not the record of a run")
    return record


def by_stage(chain: Iterable[Manifest], fact: str) -> dict[str, str]:
    """What `made_by` says of each stage, of those that say it; where subsets differ, all that they say."""
    known: dict[str, set[str]] = {}
    for manifest in chain:
        if text := manifest.made_by.get(fact):
            known.setdefault(manifest.stage, set()).add(text)
    return {stage: ", ".join(sorted(texts)) for stage, texts in sorted(known.items())}


def digest_of(value: Any) -> str:
    """SHA-256 over JSON values, whatever the order of their keys."""
    return hashlib.sha256(_text(value).encode()).hexdigest()


def _read(folder: str, user: str, digest: str = "") -> Manifest:
    """The manifest in a folder; its URI is the folder, wherever it was made.

    Args:
        user: what was made of it.
        digest: of the outputs that went in. A training that has gone on since keeps its earlier manifests.
    """
    place = storage.join(folder, MANIFEST)
    if not storage.exists(place):
        use = f"{user} was made of it" if user else "a version was registered from there"
        raise CosyFlowError(f"{place}: gone, and with it the history before it; {use}")
    manifest = Manifest.read(place)
    if digest and manifest.digest != digest:
        manifest = earlier_manifest(folder, digest) or manifest
    return replace(manifest, uri=_plain(folder))


def _check_sources(manifest: Manifest) -> None:
    if len(manifest.sources) != len(manifest.inputs):
        raise CosyFlowError(
            f"{storage.join(manifest.uri, MANIFEST)}: does not name the folders of its {len(manifest.inputs)} inputs,"
            " as CosyFlow 0.1 did not; run the pipeline again"
        )


def _plain(folder: str) -> str:
    return storage.join(folder)


def _label(manifest: Manifest) -> str:
    return f"{manifest.stage} {manifest.name}".strip()


def _recipe_name(record: Mapping[str, Any]) -> str:
    recipe = str(record.get("run", {}).get("recipe", ""))
    return PurePosixPath(recipe).stem if recipe.endswith((".yaml", ".yml")) else recipe


def _not_default(record: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    plain = json.loads(json.dumps(dict(defaults)))  # as the record has them: lists, not tuples
    return {name: value for name, value in record["run"].items() if name not in plain or plain[name] != value}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
