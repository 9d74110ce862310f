"""What modules import, tried in a process of its own that lacks every package but some."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
IMPORT_ONLY = """
import importlib, json, sys

absent, modules = json.loads(sys.argv[1])


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"{name} is not there", name=name)


sys.meta_path.insert(0, Absent())
for module in modules:
    importlib.import_module(module)
"""

WITHOUT_TORCH = """
large = [name for name in ("torch", "torchaudio", "onnxruntime", "transformers") if name in sys.modules]
print("\\nstatus", status, large)
"""
MAIN = """
import json, sys
from {module} import main

status = main(json.loads(sys.argv[1]))
"""


def locked() -> dict[str, list[dict[str, Any]]]:
    """The entries of uv.lock by distribution; a few have one for each version of Python."""
    lock = tomllib.loads((CHECKOUT / "uv.lock").read_text(encoding="utf-8"))
    packages: dict[str, list[dict[str, Any]]] = {}
    for package in lock["package"]:
        packages.setdefault(package["name"], []).append(package)
    return packages


def with_dependencies(distributions: Iterable[str]) -> set[str]:
    """The distributions and all that they need, as uv.lock resolves them."""
    packages, waiting, found = locked(), list(distributions), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            for package in packages[name]:
                extras = [need for needs in package.get("optional-dependencies", {}).values() for need in needs]
                waiting += [need["name"] for need in (*package.get("dependencies", []), *extras)]
    return found


def import_with(modules: Sequence[str], distributions: set[str]) -> None:
    """Imports the modules where, of the installed packages, only those of `distributions` and CosyFlow are there."""
    absent = [
        name
        for name, owners in packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & {*distributions, "cosyflow"}
    ]
    assert "pytest" in absent
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ONLY, json.dumps([absent, modules])],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def ends_without_torch(program: str, argument: object, status: int = 0) -> None:
    """Runs a program, which leaves a number in `status` and must not have imported PyTorch or what is as large.

    Args:
        argument: what the program reads as JSON from its first argument.
    """
    command = [sys.executable, "-c", program + WITHOUT_TORCH, json.dumps(argument)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.stdout.endswith(f"\nstatus {status} []\n"), done.stdout[-500:] + done.stderr[-2000:]


def runs_without_torch(module: str, *words: object) -> None:
    """Runs a command, e.g. of `cosyflow.cli.main`, which must do its work without PyTorch."""
    ends_without_torch(MAIN.format(module=module), [str(word) for word in words])
