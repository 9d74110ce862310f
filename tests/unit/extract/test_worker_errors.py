"""What goes wrong in a worker, a thread or a process, names the utterance."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cosyflow.errors import MachineError
from cosyflow.extract.job import Extractor, Item, UnitResult, Workers, run_job
from cosyflow.unexpected import UnexpectedError

UNITS = [[Item(f"utt{number}", f"/wavs/{number}.wav") for number in range(first, first + 4)] for first in (0, 4)]


class NoParts:
    """As of a first run that keeps nothing."""

    def load(self) -> dict[str, list[Any]]:
        return {}

    def add(self, values: dict[str, list[Any]]) -> None:
        pass


@dataclass(frozen=True)
class Failing:
    """Fails at one utterance as `end` says."""

    end: str
    model: Any = None

    def loader(self) -> Callable[[int], Extractor]:
        return partial(_load, self.end)

    def extract(self, items: Sequence[Item]) -> UnitResult:
        if any(item.utt == "utt6" for item in items):
            if self.end == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ZeroDivisionError("by\nnothing")
        return UnitResult(values={item.utt: [1.0] for item in items})


def _load(end: str, device: int) -> Failing:
    return Failing(end)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [Workers(2), Workers(1, processes=True)], ids=str)
def test_an_error_that_nobody_foresaw_names_the_utterance(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    told = r"^utterance utt6 \(/wavs/6\.wav\): ZeroDivisionError: by nothing; its traceback is in (?P<log>.*\.log)$"
    with pytest.raises(UnexpectedError, match=told) as failed:
        run_job(UNITS, Failing("unexpected"), NoParts(), workers, "x")  # type: ignore[arg-type]
    found = re.match(told, str(failed.value))
    assert found is not None
    assert "in extract" in Path(found["log"]).read_text()


@pytest.mark.slow
def test_a_killed_worker_is_told_in_words() -> None:
    with pytest.raises(MachineError, match=r"^a worker process was killed; .* the same command goes on"):
        run_job(UNITS, Failing("killed"), NoParts(), Workers(1, processes=True), "x")  # type: ignore[arg-type]
