"""The summary at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cosyflow.stage import Manifest
from pipelines.summary import summarize

ARGUMENTS = {"data_root": "/data", "mlflow_uri": "sqlite:////data/mlflow.db"}


def manifest(stage: str, **changed: Any) -> Manifest:
    values: dict[str, Any] = {
        "name": "x",
        "key": "k",
        "uri": "u",
        "digest": "d",
        "counts": {},
        "files": {},
        "folders": {},
    }
    values |= {"settings": {}, "inputs": [], "details": {}, "seconds": 61.0, "stand_ins": False, **changed}
    return Manifest(stage=stage, **values)


def lines_of(*manifests: Manifest) -> list[str]:
    return summarize(manifests, 200.0, ARGUMENTS, Path("run.log")).splitlines()


def test_a_stage_counts_all_its_subsets() -> None:
    made = {"inputs": 10, "outputs": 9, "rejects": 1, "shards": 2}
    lines = lines_of(manifest("parquet", counts=made), manifest("parquet", counts=made, reused=True))
    assert "parquet              01:01  2 subsets: 18 of 20 utterances, 2 rejected, 4 shards" in lines
    assert "all                  03:20  below /data" in lines


def test_losses_and_versions_are_told() -> None:
    losses = {"train_loss_first": 8.0, "train_loss_last": 4.0, "cv_loss_first": 7.5, "cv_loss_last": 6.0}
    lines = lines_of(
        manifest("train", details=losses), manifest("register", details={"versions": {"cosyvoice2-llm": 3}})
    )
    assert "Training loss    8.000 in the first epoch, 4.000 in the last (-50%)" in lines
    assert "Validation loss  7.500 in the first epoch, 6.000 in the last (-20%)" in lines
    assert "Registered       cosyvoice2-llm version 3" in lines


def test_stand_ins_are_never_passed_off_as_models() -> None:
    assert not any("stand-in" in line for line in lines_of(manifest("train")))
    assert any("stand-in" in line for line in lines_of(manifest("train", stand_ins=True)))


def test_tells_where_to_look_next() -> None:
    lines = lines_of(manifest("train"))
    assert any(line.endswith("mlflow ui --backend-store-uri sqlite:////data/mlflow.db") for line in lines)
    assert any(line.endswith("run.log") for line in lines)
