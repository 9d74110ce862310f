"""The launcher: real processes by torchrun, and what it says of how they ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyflow.errors import CosyFlowError
from cosyflow.launch.local import run_locally

PROGRAM = "tests.unit.launch.failing"


@pytest.mark.medium
def test_output_is_shown_and_logged(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "run" / "train.log"
    run_locally(PROGRAM, ["well"], 2, log)
    shown = capfd.readouterr().out
    for line in ("rank 0 of 2", "rank 1 of 2"):
        assert line in shown
        assert line in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("user-error", r"^utterance x: has no tokens$"),
        ("defect", r"^training failed on rank 1: KeyError: 'something'; its whole output is in .*train\.log$"),
        ("killed", r"^training ended with status 1 and no process could say why .*train\.log$"),
    ],
)
def test_the_first_failing_process_tells_why(tmp_path: Path, ending: str, message: str) -> None:
    """The other process sleeps for a minute: it is ended, not waited for."""
    with pytest.raises(CosyFlowError, match=message):
        run_locally(PROGRAM, [ending], 2, tmp_path / "train.log")
