"""For all tests: no deadline that a busy machine misses, and a word on tests that have outgrown their mark."""

from __future__ import annotations

import pytest
from hypothesis import settings

LIMITS = {"slow": float("inf"), "medium": 10.0}
SECONDS = 1.0
"""How long a test may take on an idle core: by its mark, and without one."""
FAR = 3
"""A machine that does other work too is no reason to be named."""

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


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
