"""`python -m pipelines`: its options are the pipeline's parameters, its errors one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.__main__ import build_parser, main
from pipelines.cosyvoice import cosyvoice
from pipelines.options import read_parameters


def parse_run(*options: str) -> dict[str, object]:
    return read_parameters(build_parser().parse_args(["run", *options]))


def test_run_has_the_defaults_of_the_pipeline_and_a_place_on_this_machine() -> None:
    parameters = parse_run()
    for name, spec in cosyvoice.component_spec.inputs.items():
        if name not in ("data_root", "mlflow_uri", "num_processes"):
            assert parameters[name] == spec.default, name
    assert parameters["data_root"] == "exp/data"
    assert str(parameters["mlflow_uri"]).startswith("sqlite:////")


@pytest.mark.parametrize("spelling", ["--stop-stage", "--stop_stage"])
def test_both_spellings_work(spelling: str) -> None:
    assert parse_run("--recipe", "cosyvoice2", "--start-stage", "-1", spelling, "3")["stop_stage"] == 3


def test_lists_and_switches() -> None:
    parameters = parse_run("--train-subsets", "a", "b", "--no-pin-memory", "--overrides", "train_conf.max_epoch=3")
    assert parameters["train_subsets"] == ["a", "b"]
    assert parameters["pin_memory"] is False
    assert parameters["overrides"] == ["train_conf.max_epoch=3"]


def test_submit_needs_a_server(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("KFP_HOST", raising=False)
    assert main(["submit", "--data-root", "s3://bucket/data"]) == 1
    assert capsys.readouterr().err == "pipelines submit: error: no server: give --host or set KFP_HOST\n"


def test_a_missing_image_lock_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "lock.yaml"
    assert main(["compile", "--output", str(tmp_path), "--images", str(lock)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"pipelines compile: error: {lock}: cannot read the image lock")
    assert error.count("\n") == 1
