"""`python -m pipelines`: how the settings of a run are given, and how the commands refuse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.commands import build_parser, main
from pipelines.options import read_settings


def settings_of(*options: str, command: str = "run", defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return read_settings(build_parser().parse_args([command, *options]), defaults)


def test_what_is_not_given_is_left_to_the_defaults_of_run() -> None:
    assert settings_of() == {}


@pytest.mark.parametrize("spelling", ["--stop-stage", "--stop_stage"])
def test_both_spellings_work(spelling: str) -> None:
    assert settings_of("--start-stage", "-1", spelling, "3") == {"start_stage": -1, "stop_stage": 3}


def test_lists_and_switches() -> None:
    given = settings_of("--train-subsets", "a", "b", "--no-pin-memory", "--dpo", "--overrides", "train_conf.seed=3")
    assert given == {
        "train_subsets": ["a", "b"],
        "pin_memory": False,
        "dpo": True,
        "overrides": ["train_conf.seed=3"],
    }


def test_the_file_counts_less_than_an_option_and_an_option_less_than_set(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("num_nodes: 2\nnum_workers: 2\nprefetch: 2\noverrides: [train_conf.seed=2]\n")
    given = settings_of(
        *("--run", str(file), "--num-workers", "3", "--prefetch", "3", "--set", "prefetch=4"),
        *("--set", "train_conf.max_epoch=4"),
        defaults={"num_nodes": 1, "experiment": "mine"},
    )
    assert (given["num_nodes"], given["num_workers"], given["prefetch"]) == (2, 3, 4)
    assert given["overrides"] == ["train_conf.seed=2", "train_conf.max_epoch=4"]
    assert given["experiment"] == "mine"


def test_set_takes_lists_as_words_and_as_yaml_and_settings_that_are_no_options() -> None:
    assert settings_of("--set", "train_subsets=a,b")["train_subsets"] == ("a", "b")
    assert settings_of("--set", "train_subsets=[a, b]")["train_subsets"] == ("a", "b")
    assert settings_of("--set", "subsets_at_once=5")["subsets_at_once"] == 5
    assert settings_of("--set", "resources={merge: {cpu_limit: 2}}")["resources"] == {"merge": {"cpu_limit": "2"}}


@pytest.mark.parametrize("command", ["run", "submit", "check", "show", "keys"])
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["--num-nodes", "many"],
            "error: --num-nodes: invalid int value: 'many'; see python -m pipelines COMMAND --help",
        ),
        (["--no-such"], "error: --no-such: is unknown; python -m pipelines --help shows what there is"),
        (["--set", "prefetch"], "error: --set: 'prefetch' is not KEY=VALUE, e.g. train_conf.max_epoch=3; give one"),
        (["--set", "prefetch=x"], 'error: prefetch: "x" is not a whole number; give one'),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(
    command: str, options: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    host = ["--host", "http://127.0.0.1:9"] if command == "submit" else []
    try:
        status: object = main([command, *host, "--data-root", "/nowhere/data", *options])
    except SystemExit as end:  # argparse's own
        status = end.code
    shown = capsys.readouterr()
    assert (status, shown.out, shown.err) == (2, "", line.replace("COMMAND", command) + "\n")


def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    assert main(["check", "--run", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"error: run: {file}")
    file.write_text("recipe: cosyvoice2\ndata_root: [\n")
    assert main(["check", "--run", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"error: run: {file}:3: not YAML")


def test_submit_needs_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--data-root", "s3://bucket/data"]) == 2
    assert capsys.readouterr().err == "error: --host: is missing; give the address of a server, or set KFP_HOST\n"


@pytest.mark.medium
@pytest.mark.parametrize("options", [["--images", "no.yaml"], ["--release"]])
def test_an_image_lock_that_is_missing_is_refused_in_one_line(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compile", "--output", "out", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --images: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_is_there_before_the_large_packages_are_loaded() -> None:
    """A person who asks for help should not wait for PyTorch."""
    source = "import sys, pipelines.commands as main; main.build_parser(); print(*{'torch', 'kfp'} & {*sys.modules})"
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""
