"""Collects tests from the golden files that are found: more cases of the same kinds need no change of code."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from _pytest.compat import NOTSET
from safetensors.torch import load_file

DEFAULT_DIRECTORY = Path(__file__).resolve().parents[2].parent / "shared" / "golden"


@dataclass(frozen=True)
class GoldenCase:
    """One numeric case: `NAME.json` with `kind` and `config`, and `NAME.safetensors` beside it."""

    path: Path
    dtype: torch.dtype = torch.float32
    """Of the numbers that are not integers."""

    @property
    def name(self) -> str:
        return self.path.stem

    @cached_property
    def info(self) -> dict[str, Any]:
        return json.loads(self.path.read_text())

    @cached_property
    def tensors(self) -> dict[str, torch.Tensor]:
        return self._converted(load_file(self.path.with_suffix(".safetensors")))

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        return self._converted(load_file(self.path.parent.parent / self.info["weights_file"]))

    def in_double(self) -> GoldenCase:
        """The same case in float64."""
        return GoldenCase(self.path, torch.float64)

    def _converted(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.dtype == torch.float32:
            return tensors
        return {
            name: value.to(self.dtype) if value.dtype == torch.float32 else value for name, value in tensors.items()
        }

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """The tensors whose name starts with `prefix` ("in.", "rand.", "out.", "grad."), without it."""
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}

    def state_dict(self, prefix: str = "w.") -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in self.weights.items() if name.startswith(prefix)}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden-dir", type=Path, default=DEFAULT_DIRECTORY, help="the reference numbers")


def pytest_report_header(config: pytest.Config) -> str:
    directory = config.getoption("--golden-dir")
    return f"golden: {directory}" if directory.is_dir() else f"golden: {directory} is absent, its cases are not tested"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Fills the arguments `golden_case` and `golden_file` of a test with the files that are found.

    The marker `golden_kind(REGEX)` matches the whole `kind` of a case; `golden_files(GLOB)` is a pattern below the
    golden folder, e.g. "data/features_*.json".
    """
    directory: Path = metafunc.config.getoption("--golden-dir")
    if "golden_case" in metafunc.fixturenames:
        kind = metafunc.definition.get_closest_marker("golden_kind").args[0]
        cases = [GoldenCase(path) for path in sorted(directory.glob("cases/*.json"))]
        cases = [case for case in cases if re.fullmatch(kind, case.info["kind"])]
        metafunc.parametrize("golden_case", cases, ids=lambda case: case.name)
    if "golden_file" in metafunc.fixturenames:
        pattern = metafunc.definition.get_closest_marker("golden_files").args[0]
        metafunc.parametrize("golden_file", sorted(directory.glob(pattern)), ids=lambda path: path.stem)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No files, no tests: an empty parametrisation would otherwise count as a skip."""
    found = [item for item in items if not _has_no_files(item)]
    items[:] = found


def _has_no_files(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return any(parameters.get(name, item) is NOTSET for name in ("golden_case", "golden_file"))
