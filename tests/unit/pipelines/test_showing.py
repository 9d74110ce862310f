"""`show`, `check` and `keys`: what a run is, whether it can work, and what names its work, before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosyflow.run.config import FIELDS, from_parameters
from cosyflow.run.record import Record
from cosyflow.run.stages import STAGES
from pipelines.commands import main
from tests.unit.pipelines.conftest import SUBSETS


def told(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> str:
    """What a command prints."""
    assert main(arguments) == status
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def files_below(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_show_prints_every_setting_and_reads_it_back_to_the_same_digest(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = told(capsys, "show", "--run", str(run_file), "--set", "resources={merge: {cpu_limit: 2}}")
    assert list(yaml.safe_load(shown)) == list(FIELDS)
    run = from_parameters(yaml.safe_load(shown))
    assert shown.splitlines()[0] == f"# digest: {Record.of(run).digest}"
    again = tmp_path / "again.yaml"
    again.write_text(shown)
    assert told(capsys, "show", "--run", str(again)) == shown


def test_show_tells_settings_of_the_run_apart_from_those_of_its_recipe(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--prefetch", "3", "--set", "prefetch=4", "--set", "train_conf.max_epoch=5"]
    values = yaml.safe_load(told(capsys, "show", "--run", str(run_file), *options))
    assert (values["prefetch"], values["overrides"]) == (4, ["train_conf.max_epoch=5"])
    assert Record.of(from_parameters(values)).recipe.train_conf.max_epoch == 5


def test_show_writes_places_of_this_machine_from_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    values = yaml.safe_load(told(capsys, "show", "--data-url", "https://a.example"))
    assert (values["data_root"], values["data_url"]) == (str(tmp_path / "exp" / "data"), "https://a.example")
    assert values["pretrained_dir"] == str(tmp_path / "pretrained_models" / "CosyVoice2-0.5B")


def test_check_is_silent_and_writes_nothing(run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_below(tmp_path)
    assert told(capsys, "check", "--run", str(run_file)) == ""
    assert files_below(tmp_path) == before


def test_check_names_all_that_is_wrong_at_once_and_writes_nothing(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_below(tmp_path)
    options = ["--dev-subsets", "gone", "--average-num", "0", "--set", "train_conf.max_epochs=3", "--stop-stage", "1"]
    assert main(["check", "--run", str(run_file), *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert all(line.startswith("error: ") for line in lines)
    assert {line.split(": ")[1] for line in lines} == {
        "dev_subsets",
        "average_num",
        "train_conf.max_epochs",
        "pretrained_dir",
    }
    assert files_below(tmp_path) == before


def test_keys_names_the_work_of_every_stage(run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_below(tmp_path / "corpus")
    keys = read_keys(capsys, run_file)
    by_stage = {stage: [label for label in keys if label.startswith(f"{stage}/")] for stage in STAGES}
    for stage, labels in by_stage.items():
        names = {"subset": SUBSETS, "run": ("lists",), "part": ("cosyvoice2.tiny-llm",)}[STAGES[stage].per]
        assert labels == [f"{stage}/{name}" for name in names]
    for label, known in keys.items():
        stage = label.partition("/")[0]
        assert known.keys() == {"key", "version", "settings", "inputs"}
        assert known["version"] == STAGES[stage].version
        assert (known["key"] is None, known["inputs"] is None) == (stage != "download",) * 2  # nothing is made yet
    assert keys["download/dev"]["settings"]["data_url"] == str(tmp_path / "corpus")
    assert keys["average/cosyvoice2.tiny-llm"]["settings"] == {"average_num": 5, "val_best": True}
    assert keys["speech-token/dev"]["settings"] is None  # its model is not there
    assert files_below(tmp_path / "corpus") == before


def test_a_key_changes_with_what_it_is_made_of_and_with_nothing_else(
    run_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = read_keys(capsys, run_file)
    assert (
        read_keys(capsys, run_file, "--num-processes", "3", "--average-num", "2")["download/dev"]
        == first["download/dev"]
    )
    (tmp_path / "corpus" / "dev" / "84" / "121" / "84_121_dev_0.normalized.txt").write_text("another tone\n")
    changed = read_keys(capsys, run_file)
    assert changed["download/dev"]["key"] != first["download/dev"]["key"]
    assert changed["download/train-a"] == first["download/train-a"]


def test_keys_for_people_is_a_line_for_each(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = read_keys(capsys, run_file)
    lines = told(capsys, "keys", "--run", str(run_file)).splitlines()
    assert [line.split()[0] for line in lines] == list(keys)
    assert lines[0].split()[1:] == [keys["download/train-a"]["key"], "version", "1"]
    assert lines[-1].split()[1:] == ["not", "yet", "known", "version", "1"]


def read_keys(capsys: pytest.CaptureFixture[str], run_file: Path, *options: str) -> dict[str, Any]:
    keys: dict[str, Any] = json.loads(told(capsys, "keys", "--format", "json", "--run", str(run_file), *options))
    return keys
