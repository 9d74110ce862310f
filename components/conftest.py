"""What every component's test needs: KFP artifacts on this disk, and finished stages to hand on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kfp import dsl

from cosyflow.stage import Manifest
from tests.stage_outputs import finish_stage

OUTSIDE = {"start_stage": 8, "stop_stage": 8}
"""Beyond all stages, so none works and all must hand on."""

Finish = Callable[[str, str], dsl.Dataset]


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def outputs(tmp_path: Path) -> dict[str, dsl.Artifact]:
    """The output artifacts that KFP gives to a component."""
    return {
        "manifest": dsl.Dataset(uri=str(tmp_path / "manifest")),
        "metrics": dsl.Metrics(uri=str(tmp_path / "metrics")),
    }


@pytest.fixture
def finish(tmp_path: Path, data_root: Path) -> Finish:
    """Finishes a stage as an earlier run would have, and gives the artifact that names it."""

    def _finish(stage: str, name: str) -> dsl.Dataset:
        artifact = dsl.Dataset(uri=str(tmp_path / f"{stage}-{name}"))
        Path(artifact.path).write_text(finish_stage(data_root, stage, name).to_json())
        return artifact

    return _finish


def read_output(outputs: dict[str, dsl.Artifact]) -> Manifest:
    """The manifest that a component wrote."""
    return Manifest.read(outputs["manifest"].path)
