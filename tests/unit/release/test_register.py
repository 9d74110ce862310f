"""Models are registered by the place where they lie, once, with where they came from."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cosyflow.cli import main
from cosyflow.release.register import register_models
from tests.unit.packages import runs_without_torch


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "llm.pt"
    path.write_bytes(b"weights")
    return path


def test_a_version_knows_its_place_and_its_origin(
    registry: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSYFLOW_GIT_COMMIT", "c0ffee")
    tags = {"data_digest": "d1", "config_digest": "c1"}
    result = register_models({"cosyvoice2-llm": str(model)}, str(tmp_path / "out"), registry, tags, stand_ins=True)
    assert result.details["versions"] == {"cosyvoice2-llm": 1}
    version = MlflowClient(registry, registry).get_model_version_by_alias("cosyvoice2-llm", "candidate")
    assert version.source == model.as_uri()
    assert version.tags["data_digest"] == "d1"
    assert version.tags["git_commit"] == "c0ffee"
    assert version.tags["cosyflow.stand_ins"] == "true"
    assert "stand-in" in version.description


def test_an_interrupted_stage_registers_nothing_twice(registry: str, model: Path, tmp_path: Path) -> None:
    for _ in range(2):
        register_models({"llm": str(model)}, str(tmp_path / "out"), registry, {})
    assert len(MlflowClient(registry, registry).search_model_versions("name='llm'")) == 1
    other_run = register_models({"llm": str(model)}, str(tmp_path / "other"), registry, {})
    assert other_run.details["versions"] == {"llm": 2}


@pytest.mark.medium
def test_the_registrys_commands_need_no_torch(registry: str, model: Path, tmp_path: Path) -> None:
    cosyflow = partial(runs_without_torch, "cosyflow.cli.main")
    cosyflow("register", f"llm={model}", "--output_dir", tmp_path / "out", "--mlflow_uri", registry)
    cosyflow("models", "list", "llm", "--mlflow_uri", registry)


@pytest.mark.parametrize(
    ("place", "address", "complaint", "status"),
    [("none.pt", "sqlite:///{}/m.db", "none.pt: no such file to register", 1), ("llm.pt", "", "no model registry", 2)],
    ids=["no file", "no registry"],
)
def test_what_is_missing_is_named(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
    address: str,
    complaint: str,
    status: int,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    output = tmp_path / "out"
    arguments = [f"llm={model.parent / place}", "--output_dir", str(output), "--mlflow_uri", address.format(tmp_path)]
    assert main(["register", *arguments]) == status
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert complaint in errors[0]
    assert not output.exists()


@pytest.mark.medium
def test_a_version_that_a_killed_attempt_has_made_is_found_again(registry: str, model: Path, tmp_path: Path) -> None:
    """What the kill came before: the alias, and the file that names the versions."""
    client = MlflowClient(registry, registry)
    output = tmp_path / "out"
    register_models({"llm": str(model)}, str(output), registry, {})
    client.delete_registered_model_alias("llm", "candidate")
    (output / "registered.json").unlink()
    again = register_models({"llm": str(model)}, str(output), registry, {})
    assert again.details["versions"] == {"llm": 1}
    assert len(client.search_model_versions("name='llm'")) == 1
    assert int(client.get_model_version_by_alias("llm", "candidate").version) == 1


def test_the_alias_stays_with_a_later_version(registry: str, model: Path, tmp_path: Path) -> None:
    register_models({"llm": str(model)}, str(tmp_path / "out"), registry, {})
    register_models({"llm": str(model)}, str(tmp_path / "later"), registry, {})
    (tmp_path / "out" / "registered.json").unlink()
    assert register_models({"llm": str(model)}, str(tmp_path / "out"), registry, {}).details["versions"] == {"llm": 1}
    assert int(MlflowClient(registry, registry).get_model_version_by_alias("llm", "candidate").version) == 2
