"""Each image has the packages that the stages import that run in it: tried with all others out of reach."""

from __future__ import annotations

import ast

import pytest
import yaml

from tests.unit.packages import CHECKOUT, import_with, locked, with_dependencies

FURTHER = {"base": ["cosyflow.cli.main", "pipelines.cosyvoice", "pipelines.submitting", "minio", "kubernetes"]}


def in_image(image: str) -> set[str]:
    """Distributions of an image, by the groups of pyproject.toml as uv.lock resolves them."""
    (project,) = locked()["cosyflow"]
    return with_dependencies(need["name"] for need in project["dev-dependencies"][f"image-{image}"])


def stage_modules(component: str) -> set[str]:
    """The stage of a component, and what the stage imports when it works."""
    module = f"cosyflow.stages.{component}"
    tree = ast.parse((CHECKOUT / f"cosyflow/stages/{component}.py").read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {module, *(name for name in imported if name.startswith("cosyflow."))}


def components_in(image: str) -> list[str]:
    read = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in CHECKOUT.glob("components/*/metadata.yaml")]
    return [component["name"].replace("-", "_") for component in read if component["image"] == image]


@pytest.mark.parametrize("image", ["base", "extract"])
def test_stages_import_with_what_their_image_has(image: str) -> None:
    components = components_in(image)
    assert components
    modules = sorted({module for component in components for module in stage_modules(component)})
    import_with(modules + FURTHER.get(image, []), in_image(image))


def test_the_base_image_is_without_the_large_packages() -> None:
    assert not in_image("base") & {"torch", "onnxruntime-gpu", "mlflow", "transformers", "deepspeed", "scipy", "pandas"}
