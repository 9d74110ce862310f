"""`make test-fast` has tests of every package, and enough of them to be worth running."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from tests.unit.packages import CHECKOUT

AT_LEAST = 300
TOP = ("components", "pipelines", "images")


@pytest.fixture(scope="module")
def selected() -> list[str]:
    """The tests of the target, as FILE::TEST."""
    (words,) = re.findall(r"^FAST := (.*)$", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *shlex.split(words)], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


def packages() -> list[str]:
    return sorted(path.parent.name for path in (CHECKOUT / "cosyflow").glob("*/__init__.py"))


@pytest.mark.medium
def test_every_package_has_a_test(selected: list[str]) -> None:
    """In a folder of its name, or in a file of its name among those of the core."""
    untested = [
        package
        for package in (*packages(), *TOP)
        if not any(re.match(rf"(tests/unit/)?{package}/|tests/unit/core/test_{package}\.py", test) for test in selected)
    ]
    assert not untested


@pytest.mark.medium
def test_there_are_enough_tests(selected: list[str]) -> None:
    assert len(selected) >= AT_LEAST
