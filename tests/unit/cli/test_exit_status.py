"""How the command `cosyflow` ends: its exit status, and what standard error then has."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cosyflow.cli import main
from cosyflow.cli.main import STAGES, TOOLS
from tests.unit.packages import CHECKOUT

HEAVY = ("torch", "kfp", "pyarrow", "mlflow", "transformers", "onnxruntime", "kubernetes", "pydantic")
AVERAGE = ["average", "--src_path", "absent", "--dst_model", "average.pt"]


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ([], ["COMMAND: is missing; give it (see cosyflow --help)"]),
        (["avrage"], [r"COMMAND: invalid choice: 'avrage' \(choose from .*\); see cosyflow --help"]),
        (
            ["average"],
            [
                "--dst_model: is missing; give it (see cosyflow average --help)",
                "--src_path: is missing; give it (see cosyflow average --help)",
            ],
        ),
        (
            [*AVERAGE, "--nmu", "3", "--best=1"],
            [f"{name}: is unknown; cosyflow --help shows what there is" for name in ("--nmu", "--best")],
        ),
        ([*AVERAGE, "--num", "many"], ["--num: invalid int value: 'many'; see cosyflow average --help"]),
        ([*AVERAGE, "--num"], ["--num: expected one argument; see cosyflow average --help"]),
        (
            ["train", "--ddp.dist-backend", "mpi"],
            [r"--ddp.dist_backend: invalid choice: 'mpi' \(choose from .*\); see cosyflow train --help"],
        ),
    ],
)
def test_a_wrong_command_line_is_refused(
    words: list[str], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.splitlines()) == len(lines)
    for line, wanted in zip(told.err.splitlines(), lines, strict=True):
        assert line == f"error: {wanted}" or re.fullmatch(f"error: {wanted}", line)


def test_a_wrong_recipe_is_refused_with_all_that_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text("version: cosyvoice2\ntrain_conf:\n  optim: adamax\n  max_epoch: many\n")
    assert main(["export", "--config", str(recipe), "--checkpoint", "llm.pt", "--output_dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: train_conf.optim: {recipe}:3: input should be 'adam' or 'adamw', not \"adamax\"; change it",
        f'error: train_conf.max_epoch: {recipe}:4: input should be a valid integer, not "many"; change it',
    ]


def test_bad_input_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["average", "--src_path", str(tmp_path), "--dst_model", str(tmp_path / "average.pt")]) == 1
    assert capsys.readouterr().err.startswith(f"cosyflow average: error: {tmp_path}: no checkpoint")


def test_a_defect_leaves_its_traceback_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("cosyflow.release.average.average_model", lambda *_: {}["a\nb"])
    assert main(AVERAGE) == 1
    (line,) = capsys.readouterr().err.splitlines()
    match = re.fullmatch(r"cosyflow average: error: KeyError: 'a\\nb'; .* its traceback is in (.*)", line)
    assert match is not None
    assert "Traceback (most recent call last)" in Path(match[1]).read_text()


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fails(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/average.pt")

    monkeypatch.setattr("cosyflow.release.average.average_model", fails)
    assert main(AVERAGE) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cosyflow average: error: /full/average.pt: No space left on device; make room there")


def test_a_command_without_its_extra_says_which_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "cosyflow.release.average", raising=False)
    assert main(AVERAGE) == 1
    told = "cosyflow average: error: torch is not installed; install it with: pip install 'cosyflow[train]'\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_command_in_one_line(number: signal.Signals, status: int, tmp_path: Path) -> None:
    """The stage reads a list that is a pipe, to which nobody writes."""
    folder = tmp_path / "dev-clean" / "parquet"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "data.list")
    lists = ["--train_subsets", "dev-clean", "--dev_subsets", "none"]
    words = ["merge", "--src_dir", str(tmp_path), "--des_dir", str(tmp_path / "lists"), *lists]
    process = subprocess.Popen(
        [sys.executable, "-m", "cosyflow", *words],
        cwd=CHECKOUT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's background job ignores Ctrl-C
    )
    writer = os.open(folder / "data.list", os.O_WRONLY)  # opens when the command has opened it too
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    os.close(writer)
    assert process.returncode == status
    assert told.count("\n") == 1
    assert told.startswith("cosyflow merge: ")


@pytest.mark.parametrize("words", [["--help"], *([command, "--help"] for command in (*STAGES, *TOOLS))])
def test_help_is_quick_and_imports_nothing_heavy(words: list[str]) -> None:
    program = f"""
import os, sys
from cosyflow.cli import main
try:
    main(sys.argv[1:])
finally:
    used = os.times()
    print([name for name in {HEAVY!r} if name in sys.modules], used.user + used.system < 0.5, file=sys.stderr)
"""
    for _ in range(3):  # other work on the machine adds to the processor's time
        done = subprocess.run(
            [sys.executable, "-c", program, *words], cwd=CHECKOUT, capture_output=True, text=True, check=False
        )
        if done.stderr == "[] True\n":
            break
    assert (done.returncode, done.stderr) == (0, "[] True\n")
    assert "usage: cosyflow" in done.stdout
