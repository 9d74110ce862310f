"""How far a training goes is no part of its name: it goes on in its folder, and can be asked for less."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cosyflow.config.load import load_config
from cosyflow.config.options import LaunchOptions
from cosyflow.content import Digests
from cosyflow.errors import RefusalError
from cosyflow.launch import train_stage
from cosyflow.provenance import RUN_TAGS_VARIABLE
from cosyflow.run.execute import Work, execute, find_work
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from cosyflow.stage import Manifest, StageResult
from cosyflow.training.arguments import Arguments
from tests.unit.run.world import World, finish

LLM = "cosyvoice2.tiny-llm"
TRAIN, AVERAGE = STAGES["train"], STAGES["average"]
Launched = list[tuple[Arguments, LaunchOptions]]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Launched:
    """Trainings that were started. Each goes on in its folder: an epoch is a checkpoint of one weight, its number."""
    calls: Launched = []

    def launch(arguments: Arguments, options: LaunchOptions, task_config: Mapping[str, Any] | None) -> StageResult:
        calls.append((arguments, options))
        conf, folder, files = load_config(arguments.config).train_conf, Path(arguments.model_dir), []
        for epoch in range(conf.max_epoch):
            name = f"epoch_{epoch}_whole"
            if not (folder / f"{name}.pt").exists():
                torch.save({"weight": torch.tensor([float(epoch)])}, folder / f"{name}.pt")
                loss = f"epoch: {epoch}\nstep: {epoch}\nloss_dict: {{loss: {10 - epoch}}}\n"
                (folder / f"{name}.yaml").write_text(loss)
            files += [f"{name}.pt", f"{name}.yaml"]
        (folder / "metrics.jsonl").write_text("one line an epoch\n" * conf.max_epoch)
        return StageResult({"epochs": conf.max_epoch}, [*files, "metrics.jsonl"], digest=f"of {conf.max_epoch} epochs")

    monkeypatch.setattr(train_stage, "launch", launch)
    monkeypatch.setenv(RUN_TAGS_VARIABLE, "")
    return calls


def of_epochs(world: World, epochs: int, *overrides: str, **changed: Any) -> Record:
    return world.record(overrides=[f"train_conf.max_epoch={epochs}", *overrides], **changed)


def training(record: Record) -> Work:
    lists = finish(record, "merge")["merge/lists"]
    return find_work(TRAIN, record, LLM, [lists], Digests(record.digests))


def train(record: Record) -> Manifest:
    return execute(training(record), record)


def average(record: Record, trained: Manifest) -> Manifest:
    return execute(find_work(AVERAGE, record, LLM, [trained], Digests()), record)


def weight(averaged: Manifest) -> float:
    return float(torch.load(Path(averaged.uri) / "llm.pt", weights_only=True)["weight"])


@pytest.mark.medium
def test_a_training_is_told_what_the_run_says(world: World, launched: Launched) -> None:
    record = of_epochs(world, 2, num_workers=3, experiment="mine", gpus_per_node=0)
    made = train(record)
    ((arguments, options),) = launched
    assert (arguments.num_workers, arguments.experiment, options.gpus_per_node) == (3, "mine", 0)
    assert (arguments.model_dir, arguments.config) == (made.uri, f"{made.uri}/recipe.yaml")
    assert load_config(arguments.config) == record.recipe
    assert arguments.checkpoint == f"{world.pretrained}/llm.pt"
    assert arguments.qwen_pretrain_path == f"{world.pretrained}/CosyVoice-BlankEN"
    assert arguments.mlflow_uri == f"sqlite:///{world.folder}/mlflow.db"
    assert arguments.run_name == LLM
    tags = json.loads(os.environ[RUN_TAGS_VARIABLE])
    assert (tags["recipe"], tags["settings_uri"]) == ("cosyvoice2.tiny", record.uri)


@pytest.mark.medium
def test_more_epochs_go_on_in_the_same_folder(world: World, launched: Launched) -> None:
    fewer = train(of_epochs(world, 5))
    more = of_epochs(world, 8)
    assert training(more).problem == "trained for 5 of 8 epochs so far: goes on"
    assert training(more).folder == fewer.uri
    gone_on = train(more)
    assert (gone_on.uri, gone_on.key) == (fewer.uri, fewer.key)
    assert gone_on.digest != fewer.digest  # so what is made of it is made anew
    assert gone_on.counts == {"epochs": 8}
    assert train(more).reused
    assert len(launched) == 2


@pytest.mark.medium
def test_fewer_epochs_are_handed_on_as_they_were_while_they_are_there(world: World, launched: Launched) -> None:
    fewer = train(of_epochs(world, 5))
    train(of_epochs(world, 8))
    again = train(of_epochs(world, 5))
    assert again.reused
    assert (again.digest, again.counts) == (fewer.digest, fewer.counts)
    assert "epoch_5_whole.pt" not in again.files
    assert train(of_epochs(world, 8)).counts == {"epochs": 8}
    assert len(launched) == 2


@pytest.mark.medium
def test_an_average_of_fewer_epochs_takes_none_of_the_later_ones(world: World, launched: Launched) -> None:
    few = of_epochs(world, 3, average_num=1)
    train(few)
    many = of_epochs(world, 8, average_num=1)
    assert weight(average(many, train(many))) == 7  # the lowest loss of all is that of the last epoch
    assert weight(average(few, train(few))) == 2
    newest = of_epochs(world, 3, average_num=2, val_best=False)
    assert weight(average(newest, train(newest))) == 1.5


@pytest.mark.medium
def test_fewer_epochs_that_are_gone_are_refused(world: World, launched: Launched) -> None:
    made = train(of_epochs(world, 5))
    train(of_epochs(world, 8))
    Path(made.uri, "epoch_1_whole.pt").unlink()  # that of more epochs has lost it too
    with pytest.raises(RefusalError) as refusal:
        training(of_epochs(world, 5))
    (problem,) = refusal.value.problems
    assert problem.setting == "train_conf.max_epoch"
    assert problem.text.startswith(f"5, but this training has gone on to 8 epochs ({made.uri}); ask for 8, or change")
    with pytest.raises(RefusalError, match="has gone on to 8 epochs"):
        training(of_epochs(world, 6))


@pytest.mark.medium
def test_a_lost_checkpoint_is_trained_again(world: World, launched: Launched) -> None:
    made = train(of_epochs(world, 2))
    Path(made.uri, "epoch_1_whole.pt").unlink()
    assert not train(of_epochs(world, 2)).reused
    assert Path(made.uri, "epoch_1_whole.pt").exists()


@pytest.mark.medium
def test_what_a_new_training_does_not_share_with_the_earlier_one_is_told(
    world: World, launched: Launched, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = train(of_epochs(world, 2))
    capsys.readouterr()
    train(of_epochs(world, 2, "train_conf.optim_conf.lr=0.5"))
    said = capsys.readouterr().out
    assert f"a new training; the earlier one in {earlier.uri} differs in recipe.train_conf.optim_conf.lr: 0.5" in said
    assert f"--checkpoint {earlier.uri}/epoch_1_whole.pt" in said
    train(of_epochs(world, 3, "train_conf.optim_conf.lr=0.5"))
    assert "a new training" not in capsys.readouterr().out


@pytest.mark.medium
def test_other_data_are_told_as_such(world: World, launched: Launched, capsys: pytest.CaptureFixture[str]) -> None:
    train(of_epochs(world, 2))
    train(of_epochs(world, 2, num_utts_per_parquet=7))
    assert "differs in its data" in capsys.readouterr().out


def test_what_is_not_there_is_not_started_from(world: World) -> None:
    for name in ("llm.pt", "CosyVoice-BlankEN"):
        (world.pretrained / name).rename(world.folder / name)
    record = world.record()
    settings = TRAIN.settings(record, LLM, Digests())
    assert settings.start == {}
    named = world.record(
        checkpoint=str(world.folder / "llm.pt"), qwen_pretrain_path=str(world.folder / "CosyVoice-BlankEN")
    )
    assert set(TRAIN.settings(named, LLM, Digests()).start) == {"checkpoint", "qwen"}


def test_the_manifest_of_another_stage_has_no_epochs(world: World) -> None:
    """As that of a training by older code: it is gone on with, not taken for a whole one."""
    record = of_epochs(world, 2)
    made = finish(record, "train")[f"train/{LLM}"]
    assert TRAIN.accepts(made, record) == ""
    assert TRAIN.accepts(replace(made, details={}), record) == "trained for 0 of 2 epochs so far: goes on"
