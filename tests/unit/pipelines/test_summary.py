"""The summary at the end of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cosyflow.run.config import from_parameters
from cosyflow.run.ends import End
from cosyflow.run.execute import skipped
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest
from pipelines.summary import summarize


def manifest(stage: str, **changed: Any) -> Manifest:
    return replace(skipped(STAGES[stage], "x"), **{"uri": "u", "details": {}, "seconds": 61.0, **changed})


def lines_of(*manifests: Manifest, **settings: Any) -> list[str]:
    record = Record.of(from_parameters({"data_root": "/data/of mine", **settings}))
    return summarize([End.of(each) for each in manifests], 200.0, record, Path("run.log")).splitlines()


def test_a_stage_counts_all_its_subsets_and_only_the_time_that_it_worked() -> None:
    made = {"inputs": 10, "outputs": 9, "rejects": 1, "shards": 2}
    lines = lines_of(manifest("parquet", counts=made), manifest("parquet", counts=made, reused=True))
    assert "parquet              01:01  made    2 subsets: 18 of 20 utterances, 2 rejected, 4 shards" in lines
    assert "all                  03:20          below /data/of mine" in lines


def test_a_stage_is_made_reused_or_skipped() -> None:
    lines = lines_of(manifest("download"), manifest("prepare", reused=True), skipped(STAGES["merge"], "lists"))
    assert "download             01:01  made" in lines
    assert "prepare                     reused" in lines
    assert "merge                       skipped" in lines


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
    lines = lines_of(manifest("train"), data_root="/data/root")
    assert any(line.endswith("mlflow ui --backend-store-uri sqlite:////data/mlflow.db") for line in lines)
    assert "Runs, models   http://mlflow:5000" in lines_of(manifest("train"), mlflow_uri="http://mlflow:5000")
    assert "Full output    run.log" in lines


def test_without_a_place_for_runs_none_is_told() -> None:
    assert not any(line.startswith("Runs, models") for line in lines_of(data_root="s3://bucket/data"))


def test_who_speaks_in_two_subsets_counts_once(tmp_path: Path) -> None:
    made = []
    for subset, speakers in (("train", "ann bob"), ("dev", "bob cid")):
        folder = tmp_path / subset
        folder.mkdir()
        (folder / "spk2utt").write_text("".join(f"{speaker} {speaker}_1 {speaker}_2\n" for speaker in speakers.split()))
        made.append(manifest("prepare", uri=str(folder), counts={"speakers": 2}))
    assert "prepare              02:02  made    2 subsets: 3 speakers" in lines_of(*made)
    (tmp_path / "dev/spk2utt").unlink()
    assert "prepare              02:02  made    2 subsets: at most 4 speakers" in lines_of(*made)


def test_utterances_without_a_part_in_means_are_told_where_there_are_any() -> None:
    counts = {"speakers": 2, "left_out_of_means": 0}
    assert "speaker-embedding    01:01  made    2 speakers" in lines_of(manifest("speaker-embedding", counts=counts))
    counts["left_out_of_means"] = 3
    told = "speaker-embedding    01:01  made    2 speakers, 3 left out of means"
    assert told in lines_of(manifest("speaker-embedding", counts=counts))
