"""Progress is told in whole lines where there is no terminal."""

from __future__ import annotations

import io

import pytest

from cosyflow import progress
from cosyflow.progress import Progress, format_seconds


def test_lines_tell_done_total_share_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_INTERVAL_SECONDS", 0.0)
    monkeypatch.setenv("COSYFLOW_STAGE", "4/11")
    stream = io.StringIO()
    with Progress("speech-token dev-clean", total=4, stream=stream) as bar:
        bar.update()
        bar.update(3, rejects=1)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("[stage 4/11 speech-token dev-clean] 1/4 utterances  25 %  ")
    assert "ETA" in lines[0]
    assert "rejects 1" in lines[-1]
    assert "done in 00:00" in lines[-1]
    assert "\r" not in stream.getvalue()


def test_work_of_unknown_length_has_no_share() -> None:
    stream = io.StringIO()
    with Progress("download dev-clean", total=None, unit="bytes", stream=stream) as bar:
        bar.update(10)
    assert stream.getvalue().startswith("[download dev-clean] 10 bytes  ")
    assert "%" not in stream.getvalue()


def test_a_terminal_gets_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress("merge", total=2, unit="lists", stream=stream) as bar:
        bar.update(2)
    assert "\r" in stream.getvalue()
    assert "2/2" in stream.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (61, "01:01"), (3599.6, "1:00:00"), (36000, "10:00:00")])
def test_durations(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
