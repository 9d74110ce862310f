"""How all components are built: from an image that has the library, installing nothing at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kfp import dsl
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.pipeline_task import PipelineTask

from cosyflow import __version__

IMAGES = ("base", "extract", "train")


def image_reference(image: str) -> str:
    """The image as it is built here; a compile with an image lock replaces it by a digest."""
    if image not in IMAGES:
        raise ValueError(f"{image}: not one of {', '.join(IMAGES)}")
    return f"cosyflow-{image}:{__version__}"


def image_of(task: PipelineTask) -> str:
    """The image that a component's task runs in."""
    reference: str = task.component_spec.implementation.container.image
    return reference


def component(image: str, **settings: Any) -> Callable[[Callable[..., Any]], BaseComponent]:
    """A decorator: a lightweight component that runs in one of IMAGES; `settings` are further ones of dsl.component."""
    made: Callable[[Callable[..., Any]], BaseComponent] = dsl.component(
        base_image=image_reference(image), packages_to_install=[], install_kfp_package=False, **settings
    )
    return made
