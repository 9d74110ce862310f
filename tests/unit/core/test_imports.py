"""Models and trainer import where there is little more than torch, as on a rented GPU machine."""

from __future__ import annotations

import pytest

from tests.unit.packages import CHECKOUT, import_with, with_dependencies


def modules_of(package: str) -> list[str]:
    files = sorted((CHECKOUT / package).rglob("*.py"))
    parts = [file.relative_to(CHECKOUT).with_suffix("").parts for file in files]
    return [".".join(part[:-1] if part[-1] == "__init__" else part) for part in parts if part[-1] != "__main__"]


@pytest.mark.medium
def test_models_and_training_need_torch_transformers_and_numpy_alone() -> None:
    modules = [name for package in ("models", "checkpoint", "training") for name in modules_of(f"cosyflow/{package}")]
    assert "cosyflow.models.vocoder.gan" in modules
    assert "cosyflow.training.parts" in modules
    import_with(modules, with_dependencies(["torch", "transformers", "numpy"]))
