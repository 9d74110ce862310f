"""For all tests: quick and long selections, no deadline that a busy machine misses, a word on tests over their mark."""

from __future__ import annotations

import pytest
from hypothesis import settings

LEFT_OUT_WHEN_FAST = {"medium", "slow", "cluster"}
WHEN_FAST = 4
"""Tests of a file: all of them, 1,200, took 80 s on two cores."""
LIMITS = {"slow": float("inf"), "medium": 10.0}
SECONDS = 1.0
"""How long a test may take on an idle core: by its mark, and without one."""
FAR = 3
"""A machine that does other work too is no reason to be named."""

settings.register_profile("any machine", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=10)
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fast",
        action="store_true",
        help="four tests of each file, of each the first case, of a property 10 examples; none of more than a second",
    )
    parser.addoption("--long", action="store_true", help="also what is marked long")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fast"):
        settings.load_profile("fast")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = {item for item in items if config.getoption("--long") or not item.get_closest_marker("long")}
    if config.getoption("--fast"):
        kept &= quick(items)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def quick(items: list[pytest.Item]) -> set[pytest.Item]:
    """The first tests of each file that are not marked for their time, of each the first case."""
    chosen: dict[str, dict[str, pytest.Item]] = {}
    for item in items:
        if not LEFT_OUT_WHEN_FAST & {mark.name for mark in item.iter_markers()}:
            of_file = chosen.setdefault(item.nodeid.partition("::")[0], {})
            name = item.nodeid.partition("[")[0]
            if len(of_file) < WHEN_FAST:
                of_file.setdefault(name, item)
    return {item for of_file in chosen.values() for item in of_file.values()}


def limit(report: pytest.TestReport) -> float:
    """Seconds that a test may take by its mark."""
    return next((seconds for mark, seconds in LIMITS.items() if mark in report.keywords), SECONDS)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    calls = [report for report in reports if report.when == "call"]
    long = [report for report in calls if report.duration > FAR * limit(report)]
    if long:
        terminalreporter.section("marked for less time than they took: medium is over 1 s, slow over 10 s")
        for report in sorted(long, key=lambda report: -report.duration):
            terminalreporter.line(f"{report.duration:6.1f} s  {report.nodeid}")
