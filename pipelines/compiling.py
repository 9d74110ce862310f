"""Compiles the pipeline for a Kubeflow Pipelines server, with the images that a lock file names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml
from kfp import compiler
from kfp.dsl.base_component import BaseComponent

from components.base import IMAGES, image_reference
from cosyflow.config import yaml_text
from cosyflow.errors import Problem, RefusalError
from cosyflow.run.config import Run, default_of
from cosyflow.run.execute import IMAGE_VARIABLE
from pipelines.cosyvoice import build_pipeline

REFERENCE = re.compile(r"[^\s@]+(:(?!latest$)[\w.-]+|@sha256:[0-9a-f]{64})")


def read_image_lock(path: Path, release: bool = False) -> dict[str, str]:
    """The image reference of each of components.base.IMAGES: `images: {base: registry/name@sha256:...}`.

    Args:
        release: take digests only. KFP's cache goes by the reference, so what it names must never change; builds here
            have tags that are made of their content, but a registry lets a tag be moved.

    Raises:
        RefusalError: the file cannot be read, or an image is missing, unknown or without a tag or digest.
    """
    try:
        content = yaml_text.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _wrong(f"{path}: cannot read the image lock ({error})") from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, dict):
        raise _wrong(f"{path}: the key images is missing, with a reference for each of {', '.join(IMAGES)}")
    for image in IMAGES:
        if image not in images:
            raise _wrong(f"{path}: images: {image} is missing")
    for image, reference in images.items():
        if image not in IMAGES:
            raise _wrong(f"{path}: images: {image} is not one of {', '.join(IMAGES)}")
        if not isinstance(reference, str) or not REFERENCE.fullmatch(reference):
            raise _wrong(f"{path}: images: {image}: {reference!r} is not NAME:TAG or NAME@sha256:DIGEST")
        if release and "@sha256:" not in reference:
            raise _wrong(f"{path}: images: {image}: {reference} has no digest, which a release needs; push it")
    return images


def _wrong(text: str) -> RefusalError:
    return RefusalError([Problem("--images", f"{text}; give the file that `make images` writes")])


def compile_pipelines(
    directory: Path,
    image_lock: Path | None = None,
    release: bool = False,
    kfp_cache: bool = True,
    run: Run | None = None,
) -> list[Path]:
    """Writes the IR YAML of every pipeline; equal sources and lock give equal bytes.

    Args:
        image_lock: see read_image_lock; without one the images have the names of components.base.image_reference.
        release: refuse images without a digest.
        kfp_cache: let the server's cache answer for stages whose work it has seen and the plan found whole.
        run: has resources and the number of subsets that are worked on at once; without one they have their defaults.
    """
    if release and not image_lock:
        raise _wrong("a release needs an image lock, which names each image by its digest")
    images = read_image_lock(image_lock, release) if image_lock else {}
    at_once = run.subsets_at_once if run else default_of("subsets_at_once")
    pipeline = build_pipeline(at_once, run.resources if run else {})
    directory.mkdir(parents=True, exist_ok=True)
    path, unfinished = directory / f"{pipeline.name}.yaml", directory / f".{pipeline.name}.partial.yaml"
    compiler.Compiler().compile(_with(pipeline, images, kfp_cache), str(unfinished))
    unfinished.replace(path)
    return [path]


def _with(pipeline: BaseComponent, images: Mapping[str, str], kfp_cache: bool) -> BaseComponent:
    """The pipeline with the images of a lock, and without KFP's cache where it is not wanted."""
    references = {image_reference(image): reference for image, reference in images.items()}
    executors = pipeline.pipeline_spec.deployment_spec["executors"]
    for executor in executors.values():
        container = executor["container"]
        container["image"] = references.get(container["image"], container["image"])
        for variable in dict(container).get("env", []):
            if variable["name"] == IMAGE_VARIABLE:
                variable["value"] = container["image"]
    if not kfp_cache:
        graphs = [pipeline.pipeline_spec.root, *pipeline.pipeline_spec.components.values()]
        for task in (task for graph in graphs for task in graph.dag.tasks.values()):
            task.caching_options.enable_cache = False
    return pipeline
