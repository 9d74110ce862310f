"""The kinds of jobs: one place knows each of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cosyflow.config.options import LAUNCHERS
from cosyflow.launch.kinds import KINDS
from cosyflow.launch.places import kind_of, trains_here

LIBRARY = Path(__file__).resolve().parents[4] / "cosyflow"
KNOWN_BY = {
    "config/options.py",  # the option `launcher`
    "launch/kinds/__init__.py",  # the table
    "launch/kinds/pytorchjob.py",
}


def test_the_words_of_a_kind_stand_in_its_file_and_the_table_alone() -> None:
    words = re.compile(r"pytorch-?jobs?|\bMasters?\b|\bmaster-0\b|training-operator|training operator", re.IGNORECASE)
    found = {
        str(file.relative_to(LIBRARY))
        for file in LIBRARY.rglob("*.py")
        if words.search(file.read_text(encoding="utf-8"))
    }
    assert found == KNOWN_BY


def test_every_launcher_but_the_first_two_is_a_kind() -> None:
    assert ("auto", "local", *KINDS) == LAUNCHERS


@pytest.mark.parametrize("launcher", KINDS)
def test_a_kind_trains_elsewhere_by_its_name(launcher: str) -> None:
    assert kind_of(launcher) is KINDS[launcher]
    assert not trains_here(launcher)


def test_auto_is_this_machine_but_in_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert kind_of("auto") is None
    monkeypatch.setattr("cosyflow.launch.places.in_a_pod", lambda: True)
    assert kind_of("auto") is next(iter(KINDS.values()))
    assert kind_of("local") is None
