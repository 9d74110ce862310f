"""docs/parameters.md names every parameter of the pipeline, with its type, default and meaning, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from kfp.dsl.structures import InputSpec

from pipelines.cosyvoice import cosyvoice

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "parameters.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<rest>.*) \|$", re.MULTILINE)
KINDS = {"String": "text", "Integer": "number", "Float": "number", "Boolean": "yes or no", "List[String]": "list"}
INPUTS: dict[str, InputSpec] = cosyvoice.component_spec.inputs


def default(value: Any) -> str:
    if value is None:
        return "**required**"
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value in ("", []) else f"`{value}`"


@pytest.mark.parametrize("name", INPUTS)
def test_a_parameter_is_on_the_page(name: str) -> None:
    spec = INPUTS[name]
    rows = {row["name"]: row["rest"] for row in ROW.finditer(PAGE)}
    description = " ".join((spec.description or "").split())
    assert rows[name] == f"{KINDS[spec.type]} | {default(spec.default)} | {description}"


def test_the_page_has_no_other_parameter() -> None:
    assert [row["name"] for row in ROW.finditer(PAGE)] == list(INPUTS)
