"""Which packages each image gets, from uv.lock."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cosyflow.errors import CosyFlowError

GROUPS: Mapping[str, tuple[str, ...]] = {
    "build": ("--only-group", "image-build"),
    "base": ("--only-group", "image-base"),
    "extract": ("--only-group", "image-extract"),
    "train": ("--no-default-groups", "--extra", "all"),
    "mlflow": ("--only-group", "image-mlflow"),
}
"""Options of `uv export`: a dependency group, or the library with its extra `all`."""
BELOW = {"cuda": "base", "extract": "cuda", "train": "extract"}
"""The image whose packages are there already."""
CUDA = ("nvidia-", "cuda-")
"""What the names of CUDA's packages begin with. They come with torch, and are a layer of their own below it."""


def export(uv: str, checkout: Path) -> dict[str, str]:
    """The requirements of each image in addition to those of the image below it, with the hashes of the lock, whose
    versions are the same for all.

    Raises:
        CosyFlowError: uv cannot be run, or an image lacks packages of the one below it.
    """
    exported = {name: read(_uv_export(uv, checkout, options)) for name, options in GROUPS.items()}
    cuda = {package: text for package, text in exported["extract"].items() if package.startswith(CUDA)}
    exported["cuda"] = exported["base"] | cuda
    texts = {}
    for name, packages in exported.items():
        below = exported[BELOW[name]] if name in BELOW else {}
        if missing := sorted(below.keys() - packages.keys()):
            raise CosyFlowError(f"pyproject.toml: {name} lacks what {BELOW[name]} below it has: {', '.join(missing)}")
        texts[name] = "".join(text for package, text in sorted(packages.items()) if package not in below)
    return texts


def read(text: str) -> dict[str, str]:
    """The blocks of a requirements file (a package may have one for each version of Python) by package."""
    blocks = re.findall(r"^([a-z0-9][a-z0-9._-]*)((?:.*\\\n)*.*\n)", text, re.MULTILINE)
    packages: dict[str, str] = {}
    for name, rest in blocks:
        packages[name] = packages.get(name, "") + name + rest
    return packages


def _uv_export(uv: str, checkout: Path, options: tuple[str, ...]) -> str:
    command = [uv, "export", "--frozen", "--quiet", "--no-emit-project", "--no-header", "--no-annotate", *options]
    try:
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
        raise CosyFlowError(f"{' '.join(command)}: {reason}") from error
    return done.stdout
