"""What a Retraining would run, as one hash: equal content has equal hashes on every machine."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from yaml import CSafeLoader

from cosyflow import storage
from cosyflow.content import Digests, combine
from cosyflow.run import config
from cosyflow.run.config import Run
from cosyflow.run.record import Record
from pipelines.retraining.model import Retraining


def content_hash(retraining: Retraining, data: str) -> str:
    """SHA-256, in hexadecimal, of the pipeline's IR with its images, the run's settings and recipe, and the data.

    Args:
        data: digest of the data, from `data_digest`.
    """
    content = {"ir": pipeline_digest(compiled(retraining)), "run": Record.of(retraining.settings).digest, "data": data}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def data_digest(run: Run, look: bool) -> str:
    """What the speech is known by: its address, and where it can be looked at each file below it.

    Args:
        look: read a folder's files, list a bucket's objects; False takes them as their address alone.

    Raises:
        CosyFlowError: a folder or bucket is to be listed and cannot be.
    """
    url = Record.of(run).data_url
    if not look or url.startswith(("http://", "https://")):
        return hashlib.sha256(url.encode()).hexdigest()
    if storage.is_remote(url):  # an ETag follows its content, and a look costs one request for a thousand objects
        files = {name: f"{state.size} {state.mark}" for name, state in storage.fingerprints(url).items()}
    else:
        files = Digests().tree(url)
    return hashlib.sha256(f"{url} {combine(files)}".encode()).hexdigest()


def compiled(retraining: Retraining) -> str:
    """The IR YAML of the pipeline with the Retraining's images and resources."""
    run, images = retraining.settings, retraining.spec.images
    return _compiled(run.subsets_at_once, json.dumps(run.resources), json.dumps(images, sort_keys=True))


@functools.cache
def _compiled(subsets_at_once: int, resources: str, images: str) -> str:
    """Compiling takes seconds, and most runs differ in nothing that the graph is compiled with."""
    from pipelines.compiling import compile_pipelines

    run = config.from_parameters(
        {"data_root": "s3://bucket", "subsets_at_once": subsets_at_once, "resources": json.loads(resources)}
    )
    with tempfile.TemporaryDirectory() as folder:
        lock = None
        if named := json.loads(images):
            lock = Path(folder, "images.yaml")
            lock.write_text(yaml.safe_dump({"images": named}), encoding="utf-8")
        (path,) = compile_pipelines(Path(folder, "ir"), lock, run=run)
        return path.read_text(encoding="utf-8")


@functools.cache
def pipeline_digest(text: str) -> str:
    """SHA-256 of a compiled pipeline, in hexadecimal. Which version of the SDK wrote it is no content."""
    documents: list[Any] = list(yaml.load_all(text, CSafeLoader))
    for document in documents:
        document.pop("sdkVersion", None)
    return hashlib.sha256(json.dumps(documents, sort_keys=True).encode()).hexdigest()


@functools.cache
def pipeline_name(text: str) -> str:
    """What a compiled pipeline calls itself."""
    return str(next(yaml.load_all(text, CSafeLoader))["pipelineInfo"]["name"])
