"""The world that the tests of runs live in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cosyflow.credentials import TRACKING_VARIABLE
from cosyflow.run.execute import IMAGE_VARIABLE, RUN_VARIABLE
from cosyflow.run.record import UI_VARIABLE
from tests.unit.run.world import Refused, World, plan_component


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for variable in (IMAGE_VARIABLE, RUN_VARIABLE, TRACKING_VARIABLE, UI_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    return World(tmp_path)


@pytest.fixture
def refused(world: World, capsys: pytest.CaptureFixture[str]) -> Callable[..., Refused]:
    """Plans a run of the world with changes, which must be refused, and nothing be written."""

    def _refused(run: str = "", **changed: Any) -> Refused:
        before = world.everything()
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            plan_component(run, **{**world.settings, **changed})
        assert world.everything() == before
        return Refused(ended.value.code, capsys.readouterr().err.splitlines())

    return _refused
