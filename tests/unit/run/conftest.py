"""The world that the tests of runs live in."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.run.execute import IMAGE_VARIABLE, RUN_VARIABLE
from cosyflow.run.record import TRACKING_VARIABLE, UI_VARIABLE
from tests.unit.run.world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for variable in (IMAGE_VARIABLE, RUN_VARIABLE, TRACKING_VARIABLE, UI_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    return World(tmp_path)
