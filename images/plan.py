"""Which builds make an image, each with the tag of its content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.requirements import BELOW
from images.sources import INSTALLER, LIBRARY, content_tag

TASK_IMAGES = ("base", "extract", "train")
"""Images that tasks of the pipeline run in; the packages of each lie upon those of the one before."""
PACKAGES = ("base", "cuda", "extract", "train")
"""What tasks need, from the lowest layer to the highest."""
IMAGES = (*TASK_IMAGES, "mlflow")


@dataclass(frozen=True)
class Build:
    """One Dockerfile, upon one image, under one name."""

    image: str
    finished: bool
    """Whether this is what pods run, not the packages below it."""
    dockerfile: str
    upon: str
    reference: str


def plan_builds(
    checkout: Path, wanted: Sequence[str], registry: str, python_image: str, requirements: Mapping[str, str]
) -> list[Build]:
    """The builds of the wanted images, in their order.

    An image that tasks run in is made in two: its packages, upon the packages of the image below, then the library.

    Args:
        registry: what the names begin with, e.g. registry.example/speech.
        python_image: image with Python 3.11 that all others are made from.
        requirements: see images.requirements.export.
    """
    prefix = f"{registry.rstrip('/')}/cosyflow"

    def packages(image: str, upon: str) -> Build:
        sources = [f"images/{image}", INSTALLER]
        tag = content_tag(checkout, sources, upon, requirements["build"], requirements[image])
        name = image if image == "mlflow" else f"{image}-packages"
        return Build(image, image == "mlflow", f"images/{image}/Dockerfile", upon, f"{prefix}-{name}:{tag}")

    below: dict[str, Build] = {}
    for image in PACKAGES:
        upon = below[BELOW[image]].reference if image in BELOW else python_image
        below[image] = packages(image, upon)

    builds: list[Build] = []
    for image in wanted:
        if image == "mlflow":
            builds.append(packages(image, python_image))
            continue
        needed = below[image]
        tag = content_tag(checkout, LIBRARY, needed.reference, requirements["build"])
        chain = [below[name] for name in PACKAGES[: PACKAGES.index(image) + 1]]
        builds += [build for build in chain if build not in builds]
        builds.append(Build(image, True, "images/library/Dockerfile", needed.reference, f"{prefix}-{image}:{tag}"))
    return builds


def made_by(builds: Sequence[Build]) -> dict[str, str]:
    """The reference of each finished image."""
    return {build.image: build.reference for build in builds if build.finished}
