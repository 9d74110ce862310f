"""The images of this checkout on the cluster's node: what is missing is built and imported."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from images.builders import Buildah

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER_TOOLS = REPOSITORY.parent / "shared" / "cluster"
"""Starts the test cluster, makes a base image where no registry is reached, and imports images into the node."""
PYTHON_IMAGE = "localhost/base/python:3.11"
LOCK = REPOSITORY / "build" / "images" / "images.lock.yaml"
LOCK_VARIABLE = "COSYFLOW_TEST_IMAGES"
"""A lock file whose images the node has or can pull: nothing is built then."""


def provide(figure: Callable[[str], None]) -> dict[str, str]:
    """The references of the images by name.

    Args:
        figure: is told how long building and importing took, and how large the images are.
    """
    if lock := os.environ.get(LOCK_VARIABLE):
        return read_lock(Path(lock))
    if not CLUSTER_TOOLS.is_dir():
        pytest.skip(f"images are built where {CLUSTER_TOOLS} is; elsewhere name a lock file in {LOCK_VARIABLE}")
    os.environ |= {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay"}
    subprocess.run([CLUSTER_TOOLS / "buildah-base"], check=True)
    make = ["make", "images", "BUILDER=buildah", f"BASE_IMAGE={PYTHON_IMAGE}"]
    said = subprocess.run(make, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True).stdout
    for line in said.splitlines():
        if ": built in " in line or " compressed, " in line:
            figure(line)
    references = read_lock(LOCK)
    there = subprocess.run([CLUSTER_TOOLS / "image", "list"], check=True, capture_output=True, text=True).stdout.split()
    for reference in references.values():
        if reference not in there:
            began = time.monotonic()
            import_image(reference)
            figure(f"{reference}: imported in {time.monotonic() - began:.0f} s")
    return references


def read_lock(path: Path) -> dict[str, str]:
    lock = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {**lock["images"], **lock.get("servers", {})}


def import_image(reference: str) -> None:
    """Sends an image to the node through a pipe: an archive would be gigabytes."""
    with Buildah().archive(reference) as archive:
        subprocess.run([CLUSTER_TOOLS / "image", "import", "-"], stdin=archive, check=True, stdout=subprocess.DEVNULL)
