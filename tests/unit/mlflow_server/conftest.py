"""A database of MLflow that has nothing in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.mlflow_server import connect


@pytest.fixture
def empty_database(tmp_path: Path) -> Path:
    file = tmp_path / "mlflow.db"
    assert not connect(f"sqlite:///{file}").search_registered_models()
    return file
