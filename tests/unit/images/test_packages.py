"""Each image has the packages that the stages import that run in it: tried with all others out of reach."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
FURTHER = {"base": ["cosyflow.cli.main", "pipelines.cosyvoice", "pipelines.submitting", "minio", "kubernetes"]}
IMPORT_ONLY = """
import importlib, json, sys

absent, modules = json.loads(sys.argv[1])


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)


sys.meta_path.insert(0, Absent())
for module in modules:
    importlib.import_module(module)
"""


def in_image(image: str) -> set[str]:
    """Distributions of an image, by the groups of pyproject.toml as uv.lock resolves them."""
    lock = tomllib.loads((CHECKOUT / "uv.lock").read_text(encoding="utf-8"))
    packages: dict[str, list[dict[str, Any]]] = {}
    for package in lock["package"]:
        packages.setdefault(package["name"], []).append(package)
    (project,) = packages["cosyflow"]
    waiting = [need["name"] for need in project["dev-dependencies"][f"image-{image}"]]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            for package in packages[name]:
                extras = [need for needs in package.get("optional-dependencies", {}).values() for need in needs]
                waiting += [need["name"] for need in (*package.get("dependencies", []), *extras)]
    return found


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
    there = in_image(image) | {"cosyflow"}
    absent = [
        name
        for name, distributions in packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", distribution).lower() for distribution in distributions} & there
    ]
    assert "pytest" in absent
    assert "mlflow" in absent
    arguments = json.dumps([absent, modules + FURTHER.get(image, [])])
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ONLY, arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_base_image_is_without_the_large_packages() -> None:
    assert not in_image("base") & {"torch", "onnxruntime-gpu", "mlflow", "transformers", "deepspeed", "scipy", "pandas"}
