"""An evaluation as a whole, with tiny models: what is reported, what is kept, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

from cosyflow.cli import main
from cosyflow.config.official.write import write_official
from cosyflow.config.recipe import Recipe
from cosyflow.evaluation.listing import Entry, write_list
from cosyflow.evaluation.measures import METRICS
from cosyflow.standins.models import make_stand_ins
from cosyflow.synthesis.sizes import official_settings, read_sizes
from tests.unit.evaluation.conftest import CONFIG, SMALLER, record
from tests.unit.quick_judges import list_quick_judges

SETTINGS = [word for setting in SMALLER for word in ("--set", setting)]
ROWS = {"candidate", "recorded", "resynthesis", "champion"}


def words(folder: Path, model: Path, entries: Sequence[Entry], *more: str) -> list[str]:
    write_list(entries, str(folder / "list.tsv"))
    places = ["--model_dir", str(model), "--list", str(folder / "list.tsv"), "--output_dir", str(folder / "out")]
    return ["evaluate", *places, "--config", CONFIG, *SETTINGS, "--num_processes", "1", *more]


@pytest.fixture
def judges(tmp_path: Path) -> str:
    """Two quick real judges."""
    return list_quick_judges(tmp_path)


def report_of(folder: Path) -> Any:
    return json.loads((folder / "out" / "report.json").read_text())


@pytest.mark.medium
def test_the_report_has_every_metric_and_every_row(
    tmp_path: Path,
    model_dirs: Callable[[int], Path],
    entries: list[Entry],
    judges: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = ("--judges", judges, "--champion", str(model_dirs(1)), "--format", "json")
    assert main(words(tmp_path, model_dirs(0), entries, *more)) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == report_of(tmp_path)
    assert report["rows"].keys() == ROWS
    assert all(row.keys() == METRICS.keys() for row in report["rows"].values())
    assert report["metrics"] == report["rows"]["candidate"]
    for name in ("similarity", "dnsmos", "duration_ratio", "failures", "rtf"):
        found = report["metrics"][name]
        assert found["low"] <= found["value"] <= found["high"]
        assert found["n"] == 2
        assert report["speakers"]["candidate"]["ann"][name] == found
    for name in ("wer", "cer", "quality"):
        assert report["metrics"][name].keys() == {"missing"}
    assert report["rows"]["recorded"]["duration_ratio"]["value"] == 1
    assert report["rows"]["recorded"]["similarity"]["value"] > 0.9
    assert report["decision"]["outcome"] == "refuse"
    assert report["normalisation"]["library"] == "transformers"
    wav = report["utterances"]["candidate"]["a"]["wav"]
    assert soundfile.info(wav).samplerate == 24000


@pytest.mark.medium
def test_without_judges_and_champion_it_succeeds_and_decides_nothing(
    tmp_path: Path, model_dirs: Callable[[int], Path], entries: list[Entry], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tmp_path, model_dirs(0), entries)) == 0
    assert "decision: not-judged" in capsys.readouterr().out
    assert report_of(tmp_path)["rows"]["champion"]["wer"] == {"missing": "no champion was given"}


@pytest.mark.slow
def test_what_is_spoken_and_heard_is_kept_and_the_same_in_any_number_of_processes(
    tmp_path: Path, model_dirs: Callable[[int], Path], entries: list[Entry], judges: str
) -> None:
    command = words(tmp_path, model_dirs(0), entries, "--judges", judges)
    assert main(command) == 0
    report, kept = report_of(tmp_path), sorted((tmp_path / "out" / "cache").rglob("*.*"))
    times = [file.stat().st_mtime_ns for file in kept]
    assert main(command) == 0
    assert [file.stat().st_mtime_ns for file in kept] == times
    shutil.rmtree(tmp_path / "out")
    assert main([*command, "--num_processes", "2"]) == 0
    again = report_of(tmp_path)
    for each in (report, again):
        for row in each["rows"]:
            each["rows"][row].pop("rtf")
    assert again["rows"] == report["rows"]


@pytest.mark.slow
def test_it_goes_on_after_a_kill(
    tmp_path: Path, model_dirs: Callable[[int], Path], entries: list[Entry], judges: str
) -> None:
    """Killed as soon as one utterance is spoken; no process is left, and that utterance is not spoken again."""
    many = [replace(entry, utt=f"{entry.utt}{number}") for number in range(4) for entry in entries]
    command = words(tmp_path, model_dirs(0), many, "--judges", judges, "--num_processes", "2")
    cache = tmp_path / "out" / "cache"
    process = subprocess.Popen(
        [sys.executable, "-m", "cosyflow", *command], stdout=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (spoken := list(cache.glob("speech-*/*.json"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while _is_alive(process.pid):  # its group: the processes that it started end by themselves
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first = {file: file.stat().st_mtime_ns for file in spoken}
    assert not (tmp_path / "out" / "report.json").exists()
    assert main(words(tmp_path, model_dirs(0), many, "--judges", judges)) == 0
    assert {file: file.stat().st_mtime_ns for file in spoken} == first
    assert report_of(tmp_path)["metrics"]["dnsmos"]["n"] == 8


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def failure(capsys: pytest.CaptureFixture[str], command: list[str], status: int) -> str:
    """The one line of a command that ends badly."""
    capsys.readouterr()
    assert main(command) == status
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_prompts_that_have_no_voice_are_refused_before_any_work(
    tmp_path: Path, model_dirs: Callable[[int], Path], entries: list[Entry], capsys: pytest.CaptureFixture[str]
) -> None:
    """All at once, a line for each."""
    record(tmp_path / "silent.wav", 2, level=0.0)
    record(tmp_path / "long.wav", 31)
    record(tmp_path / "low.wav", 2, rate=8000)
    bad = ("silent.wav", "long.wav", "low.wav", "gone.wav")
    changed = [replace(entries[0], utt=name, prompt_wav=str(tmp_path / name)) for name in bad]
    assert main(words(tmp_path, model_dirs(0), [*entries, *changed])) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    for name, reason in zip(bad, ("silent", "31.00 s", "8000 Hz", "gone.wav"), strict=True):
        assert any(line.startswith("error: list: ") and f" {name}: " in line and reason in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_a_model_directory_without_a_part(
    tmp_path: Path, model_dirs: Callable[[int], Path], entries: list[Entry], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_dirs(0), tmp_path / "model")
    (tmp_path / "model" / "flow.pt").unlink()
    line = failure(capsys, words(tmp_path, tmp_path / "model", entries), 1)
    assert f"{tmp_path / 'model' / 'flow.pt'}: no such file" in line
    assert "no such model directory" in failure(capsys, words(tmp_path, tmp_path / "gone", entries), 1)


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.medium)])
def test_a_model_directory_with_a_part_of_another_version(
    tmp_path: Path,
    model_dirs: Callable[[int], Path],
    entries: list[Entry],
    processes: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(model_dirs(0), tmp_path / "model")
    shutil.copy(model_dirs(0) / "hift.pt", tmp_path / "model" / "flow.pt")
    command = words(tmp_path, tmp_path / "model", entries, "--num_processes", processes)
    assert main(command) == 1
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert f"{tmp_path / 'model' / 'flow.pt'}: does not fit the model" in line
    assert not (tmp_path / "out" / "report.json").exists()


def test_a_recipe_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.tsv").write_text("")
    command = ["evaluate", "--model_dir", str(tmp_path), "--list", str(tmp_path / "list.tsv"), "--output_dir", "out"]
    line = failure(capsys, command, 2)
    assert line == f"error: --config: {tmp_path} has no official settings; name the recipe of the model"


def test_a_model_directory_brings_its_sizes(tmp_path: Path, recipe: Recipe) -> None:
    """In the official settings and those of Qwen2; options add to them."""
    make_stand_ins(tmp_path)
    (tmp_path / "cosyvoice2.yaml").write_text(write_official(recipe))
    settings = official_settings(str(tmp_path))
    assert settings is not None
    found = read_sizes(settings)
    assert (found.llm, found.hifigan.generator) == (recipe.llm, recipe.hifigan.generator)
    assert read_sizes(settings, ["gate.min_utterances=3"]).gate.min_utterances == 3
