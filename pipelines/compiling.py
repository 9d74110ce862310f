"""Compiles the pipeline for a Kubeflow Pipelines server, with the images that a lock file names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml
from kfp import compiler
from kfp.dsl.base_component import BaseComponent

from components.base import IMAGES, image_reference
from cosyflow.errors import CosyFlowError
from cosyflow.stages import NUMBERS
from pipelines.cosyvoice import cosyvoice

PIPELINES: Mapping[str, BaseComponent] = {"cosyvoice": cosyvoice}


REFERENCE = re.compile(r"[^\s@]+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})")
UNCACHED = re.compile(
    rf"^( +)cachingOptions: {{}}\n(?=\1componentRef:\n\1  name: comp-({'|'.join(NUMBERS)})$)", re.MULTILINE
)
"""Tasks of stages, as `pipelines.stage_task.stage` makes them."""


def read_image_lock(path: Path, release: bool = False) -> dict[str, str]:
    """The image reference of each of components.base.IMAGES: `images: {base: registry/name@sha256:...}`.

    Args:
        release: take digests only. KFP's cache goes by the reference, so what it names must never change; builds here
            have tags that are made of their content, but a registry lets a tag be moved.

    Raises:
        CosyFlowError: the file cannot be read, or an image is missing, unknown or without a tag or digest.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CosyFlowError(f"{path}: cannot read the image lock ({error})") from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, dict):
        raise CosyFlowError(f"{path}: the key images is missing, with a reference for each of {', '.join(IMAGES)}")
    for image in IMAGES:
        if image not in images:
            raise CosyFlowError(f"{path}: images: {image} is missing")
    for image, reference in images.items():
        if image not in IMAGES:
            raise CosyFlowError(f"{path}: images: {image} is not one of {', '.join(IMAGES)}")
        if not isinstance(reference, str) or not REFERENCE.fullmatch(reference):
            raise CosyFlowError(f"{path}: images: {image}: {reference!r} is not NAME:TAG or NAME@sha256:DIGEST")
        if release and "@sha256:" not in reference:
            raise CosyFlowError(f"{path}: images: {image}: {reference} has no digest, which a release needs; push it")
    return images


def compile_pipelines(
    directory: Path, image_lock: Path | None = None, release: bool = False, kfp_cache: bool = False
) -> list[Path]:
    """Writes the IR YAML of every pipeline; equal sources and lock give equal bytes.

    Args:
        image_lock: see read_image_lock; without one the images have the names of components.base.image_reference.
        release: refuse images without a digest.
        kfp_cache: let the server's cache answer for stages whose parameters and inputs it has seen, without a look at
            the data root: what was deleted, or changed in a folder of the same name, then goes unnoticed.
    """
    if release and not image_lock:
        raise CosyFlowError("a release needs an image lock, which names each image by its digest: give --images")
    images = read_image_lock(image_lock, release) if image_lock else {}
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, pipeline in PIPELINES.items():
        path = directory / f"{name}.yaml"
        unfinished = directory / f".{name}.partial.yaml"
        compiler.Compiler().compile(pipeline, str(unfinished))
        text = unfinished.read_text(encoding="utf-8")
        for image, reference in images.items():
            text = text.replace(f"image: {image_reference(image)}\n", f"image: {reference}\n")
        if kfp_cache:
            text = UNCACHED.sub(r"\1cachingOptions:\n\1  enableCache: true\n", text)
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
        written.append(path)
    return written
