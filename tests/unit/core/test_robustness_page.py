"""docs/robustness.md: each promise names tests, and each test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.documents import ROOT

PAGE = (ROOT / "docs" / "robustness.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`((?:[\w-]+/)+test_\w+\.py)::(test_\w+)`")
PROMISE = re.compile(r"^- .*(?:\n  .*)*", re.MULTILINE)


@cache
def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.exists() else ast.Module([], [])
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_promise_names_its_tests() -> None:
    promises = PROMISE.findall(PAGE)
    assert len(promises) > 30
    assert [promise for promise in promises if not NAMED.search(promise)] == []


@pytest.mark.medium
def test_each_named_test_is_there() -> None:
    named = NAMED.findall(PAGE)
    assert len(named) == PAGE.count("::test_"), "a name is not in the form `FILE::TEST`"
    assert [f"{file}::{test}" for file, test in named if test not in names_in(ROOT / "tests" / file)] == []
