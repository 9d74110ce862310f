"""Runs that can work are not refused, and what a plan finds and writes for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cosyflow.errors import CosyFlowError, RefusalError
from cosyflow.run import ends
from cosyflow.run.execute import RUN_VARIABLE
from cosyflow.run.plan import check, leave, plan
from cosyflow.run.record import Record
from tests.unit.run.world import World, finish, make_wav, plan_component

ONLY_DATA = {"start_stage": -1, "stop_stage": 3}


def kaldi_folder(folder: Path, wavs: Path) -> None:
    """Kaldi files of one utterance, whose audio lies elsewhere."""
    folder.mkdir(parents=True)
    wav = make_wav(wavs / f"{folder.name}.wav")
    for name, value in (("wav.scp", str(wav)), ("text", "Hello."), ("utt2spk", "speaker")):
        (folder / name).write_text(f"utterance {value}\n")


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"model": "flow"},
        {"model": "hifigan", "average_num": 4},
        {"recipe": "cosyvoice.tiny"},
        {"recipe": "cosyvoice3.tiny"},
        {"recipe": "cosyvoice3.tiny", "model": "flow"},
        {"recipe": "cosyvoice", "num_nodes": 1},
        {"recipe": "cosyvoice2"},
        {"recipe": "conf/cosyvoice3.yaml"},
        {"model": "flow", "overrides": ["mel.fmax=7000", "filter.max_length=3000", "corpus.data_url=https://x"]},
        {"model": "hifigan", "average_num": 1, "overrides": ["flow.matching.training_cfg_rate=0.1"]},
        {"overrides": ["train_conf.max_epoch=1"], "average_num": 1},
        {"overrides": ["dpo.beta=0.1"], "dpo": True, "reject_dir": "rejected"},
        {"dpo": True, "ref_model": "pretrained/llm.pt", "checkpoint": "", "reject_dir": "rejected"},
        {"checkpoint": "pretrained/llm.pt", "qwen_pretrain_path": "pretrained/CosyVoice-BlankEN"},
        {"num_processes": 4, "num_workers": 0, "prefetch": 0, "gpus_per_node": 0, "max_reject_share": 1},
        {"gpus_per_node": 2.0, "num_nodes": 1.0},  # as Kubeflow's local runner gives whole numbers
        {"job": "job.yaml", "launcher": "pytorchjob", "num_nodes": 2},
        {"mlflow_uri": "postgresql://somewhere/mlflow"},  # what only MLflow knows how to ask
        {"val_best": False, "average_num": 2},
        # data alone need no registry, no weights, and no settings of a training
        {**ONLY_DATA, "mlflow_uri": "http://127.0.0.1:9", "average_num": 9, "train_engine": "deepspeed"},
        {**ONLY_DATA, "overrides": ["train_conf_gan.seed=1"], "checkpoint": "gone.pt", "num_nodes": 2},
        {"start_stage": -1, "stop_stage": -1, "pretrained_dir": ""},
        {"start_stage": -1, "stop_stage": 0, "pretrained_dir": "/nowhere"},
    ],
)  # fmt: skip
def test_what_can_work_is_not_refused(world: World, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]) -> None:
    if not str(changed.get("recipe", "")).endswith(".yaml"):
        monkeypatch.chdir(world.folder)
    (world.folder / "rejected" / "train-a").mkdir(parents=True)
    (world.folder / "rejected" / "train-a" / "utt2speech_token.pt").touch()
    (world.folder / "job.yaml").write_text("image: cosyflow\nvolumes: []\n")
    before = world.everything()
    assert check({**world.settings, **changed}).run.model == changed.get("model", "llm")
    assert world.everything() == before


def test_ones_own_speech_may_be_kaldi_folders(world: World) -> None:
    for subset in ("mine", "mine-dev"):
        kaldi_folder(world.folder / "kaldi" / subset, world.folder / "wavs")
    chosen = {"data_url": str(world.folder / "kaldi"), "train_subsets": ["mine"], "dev_subsets": ["mine-dev"]}
    assert check({**world.settings, **chosen}).subsets.every == ["mine", "mine-dev"]


def test_a_plan_writes_the_record_and_says_what_there_is_to_do(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    told = plan_component("", **world.settings)
    record = Record.read(told.record)
    assert record == world.record()
    assert record.uri == told.record == f"{world.data}/runs/records/{record.digest[:16]}.json"
    assert (told.subsets, told.todo) == (["train-a", "train-b", "dev"], "something")
    said = capsys.readouterr().out
    assert "[plan] recipe = 'cosyvoice2.tiny' (parameter)" in said
    assert said.count("to do: download/") == 3


def test_equal_runs_have_one_record_wherever_their_settings_come_from(world: World) -> None:
    (world.folder / "run.yaml").write_text(json.dumps({**world.settings, "average_num": 3}))
    in_a_file = plan_component(str(world.folder / "run.yaml"))
    flat = plan_component("", **world.settings, average_num=3)
    assert in_a_file == flat
    changed = plan_component(str(world.folder / "run.yaml"), average_num=4)
    assert Record.read(changed.record).run.average_num == 4
    assert (world.data / "runs" / "records").is_dir()
    assert len(list((world.data / "runs" / "records").iterdir())) == 2


@pytest.mark.medium
def test_a_finished_run_has_nothing_to_do_and_the_same_stamps_each_time(world: World) -> None:
    finish(world.record())
    first, second = plan_component("", **world.settings), plan_component("", **world.settings)
    assert first.todo == "nothing"
    assert first == second


@pytest.mark.medium
def test_a_deleted_output_gives_its_tasks_a_stamp_that_no_cache_knows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = finish(world.record())
    whole = plan_component("", **world.settings)
    Path(made["parquet/dev"].uri, "made.txt").unlink()
    stamps = []
    for run in ("run-1", "run-2"):
        monkeypatch.setenv(RUN_VARIABLE, run)
        lacking = plan_component("", **world.settings)
        assert lacking.todo == "something"
        assert lacking.stamp_download == whole.stamp_download
        stamps.append(lacking.stamp_parquet)
    assert stamps == ["run-1", "run-2"]


def test_a_plan_leaves_what_it_found_for_the_report(world: World) -> None:
    finish(world.record(), last="prepare")
    planned = plan({**world.settings, "stop_stage": 1})
    leave(planned, "run-1")
    found, uri = ends.read_ends(str(world.data), "run-1")
    states = {(end.stage, end.name): end.state for end in found}
    assert uri == planned.uri
    assert states["prepare", "dev"] == "reused"
    assert states["train", "cosyvoice2.tiny-llm"] == "skipped"
    assert ("speaker-embedding", "dev") not in states  # still to be done, so its task tells itself
    assert [link.label for link in planned.unfinished] == [
        f"speaker-embedding/{subset}" for subset in ("train-a", "train-b", "dev")
    ]


def test_a_refusal_within_a_graph_is_left_for_the_report(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "run-1")
    with pytest.raises(SystemExit):
        plan_component("", **{**world.settings, "model": "hifigam"})
    (end,), _ = ends.read_ends(str(world.data), "run-1")
    assert (end.stage, end.state) == ("plan", "failed")
    assert end.error.startswith("model: 'hifigam' is not one of")


def test_a_failure_that_is_no_refusal_is_told_in_a_line(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lost(self: Record) -> str:
        raise CosyFlowError("the store is gone; start the run again")

    monkeypatch.setenv(RUN_VARIABLE, "run-1")
    monkeypatch.setattr(Record, "write", lost)
    with pytest.raises(SystemExit) as ended:
        plan_component("", **world.settings)
    assert ended.value.code == 1
    assert "[plan] failed: the store is gone; start the run again" in capsys.readouterr().out
    (end,), _ = ends.read_ends(str(world.data), "run-1")
    assert end.error == "the store is gone; start the run again"


def test_a_check_raises_all_problems_as_one(world: World) -> None:
    with pytest.raises(RefusalError) as refusal:
        check({**world.settings, "model": "x", "f0": "y"})
    assert [problem.setting for problem in refusal.value.problems] == ["f0", "model"]
