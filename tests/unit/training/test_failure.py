"""What a failed attempt leaves for the next one: its cause, and whether it would come again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cosyflow import storage
from cosyflow.errors import (
    CosyFlowError,
    MachineError,
    NotFiniteError,
    OutageError,
    Problem,
    RefusalError,
    StoppedError,
)
from cosyflow.lease import OvertakenError
from cosyflow.training.failure import (
    ATTEMPT_VARIABLE,
    WORK_VARIABLE,
    Failure,
    failure_uri,
    leaving_failure,
    read_failure,
)
from cosyflow.training.loop import train
from tests.unit.training.toy import ALONE, CountingData, NextToken, conf, quiet, training

RECIPE = Path(__file__).resolve().parents[3] / "conf" / "cosyvoice2.tiny.yaml"


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a job's process."""
    monkeypatch.setenv(WORK_VARIABLE, "work")
    monkeypatch.setenv(ATTEMPT_VARIABLE, "train")


def fail(model_dir: str, error: Exception, attempt: str = "train") -> Failure | None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(ATTEMPT_VARIABLE, attempt)
        with pytest.raises(type(error)), leaving_failure(model_dir):
            raise error
    return read_failure(model_dir, os.environ.get(WORK_VARIABLE, ""))


@pytest.mark.parametrize(
    ("error", "is_certain"),
    [
        (CosyFlowError("utterance x: has no tokens"), True),
        (RefusalError([Problem("resume", "nothing to go on from")]), True),
        (FileNotFoundError(2, "No such file or directory", "qwen2/config.json"), True),
        (OutageError("s3://bucket: no answer"), False),
        (StoppedError("stopped on request"), False),
        (MachineError("process 1 on this machine finds 0 CUDA devices"), False),
        (OvertakenError("another training has begun"), False),
        (NotFiniteError("update 7: the loss is not finite", 7), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_input_causes_is_certain(folder: str, error: Exception, is_certain: bool) -> None:
    left = fail(folder, error)
    assert left is not None
    assert (left.cause, left.is_certain, left.attempt) == (str(error), is_certain, "train")


def test_other_errors_and_other_work_say_nothing(folder: str) -> None:
    assert fail(folder, RuntimeError("Connection closed by peer")) is None
    assert fail(folder, CosyFlowError("no tokens")) is not None
    assert read_failure(folder, "other work") is None


def not_finite(update: int) -> NotFiniteError:
    return NotFiniteError(f"update {update}: the loss is not finite", update)


def test_a_loss_that_is_not_finite_is_certain_the_second_time_at_the_same_update(folder: str) -> None:
    first, again = fail(folder, not_finite(7), "train"), fail(folder, not_finite(7), "train-r1")
    assert first is not None
    assert again is not None
    assert (first.is_certain, again.is_certain) == (False, True)


def test_ranks_of_one_attempt_are_no_second_time(folder: str) -> None:
    for _ in range(2):
        left = fail(folder, not_finite(7))
        assert left is not None
        assert not left.is_certain


def test_an_outage_between_two_of_them_is_passed_over(folder: str) -> None:
    errors = [not_finite(7), OutageError("no answer"), not_finite(9), OutageError("no answer"), not_finite(9)]
    left = [fail(folder, error, f"train-r{number}") for number, error in enumerate(errors)]
    assert [(each.is_certain, each.update) for each in left if each] == [
        *((False, 7), (False, 7), (False, 9), (False, 9), (True, 9))
    ]


def test_a_certain_failure_stays(folder: str) -> None:
    fail(folder, CosyFlowError("utterance x: has no tokens"))
    left = fail(folder, OutageError("no answer"))
    assert left is not None
    assert left.cause == "utterance x: has no tokens"


def test_without_a_job_nothing_is_left(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORK_VARIABLE)
    fail(folder, CosyFlowError("utterance x: has no tokens"))
    assert not storage.exists(failure_uri(folder))


def test_a_store_that_cannot_be_written_hides_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").write_text("a file where the folder was")
    with pytest.raises(CosyFlowError, match="has no tokens"), leaving_failure(str(tmp_path / "model")):
        raise CosyFlowError("utterance x: has no tokens")
    assert "cannot leave the cause for the next attempt" in capsys.readouterr().out


def test_a_file_of_somebody_else_is_named(folder: str) -> None:
    storage.write_json(failure_uri(folder), {"what": "ever"})
    with pytest.raises(CosyFlowError, match=r"failure.json: not what a failed training leaves .* remove the file"):
        read_failure(folder, "work")


def test_the_loop_names_the_update_whose_loss_is_not_finite() -> None:
    settings = conf()
    objective = NextToken(dropout=0.0, infinite="utt5")
    with pytest.raises(NotFiniteError) as failure:
        train(training(objective, settings, data=CountingData(ALONE, 13)), quiet(settings, ALONE), None)
    assert str(failure.value).startswith(f"update {failure.value.update}: the loss is not finite")


@pytest.mark.slow
def test_a_real_process_leaves_its_error(tmp_path: Path) -> None:
    model_dir = tmp_path / "model"
    given = ["--config", str(RECIPE), "--train_data", "no.list", "--cv_data", "no.list", "--model_dir", str(model_dir)]
    command = [sys.executable, "-m", "cosyflow.training", *given, "--tokenizer_path", str(tmp_path / "qwen2")]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
    left = read_failure(str(model_dir), "work")
    assert done.returncode == 1
    assert left is not None
    assert left.is_certain
    assert left.cause in done.stderr
