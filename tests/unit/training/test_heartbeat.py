"""The heartbeat: when a run counts as left alone, by the store's clock alone."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow import storage
from cosyflow.checkpoint.folder import list_checkpoints
from cosyflow.errors import CosyFlowError
from cosyflow.training.heartbeat import STALE_SECONDS, Silence, observe, watching
from cosyflow.training.stop import StopRequest
from tests.unit.training.toy import conf, run


def test_a_beat_that_grows_old_is_silence() -> None:
    silence = Silence()
    assert silence.observe(now=1000, beat=995) == 0
    assert silence.observe(now=1060, beat=995) == 60
    assert silence.observe(now=1080, beat=1075) == 5


def test_no_beat_at_all_counts_from_the_first_look() -> None:
    silence = Silence()
    assert [silence.observe(now, None) for now in (1000, 1050, 1100)] == [0, 50, 100]


def test_after_an_outage_the_count_starts_again() -> None:
    silence = Silence()
    silence.observe(now=1000, beat=1000)
    silence.reset()
    assert silence.observe(now=5000, beat=1000) == 0
    assert silence.observe(now=5000 + STALE_SECONDS + 1, beat=1000) > STALE_SECONDS


@given(st.lists(st.integers(1, 74), min_size=1, max_size=50))
def test_regular_beats_are_never_stale(pauses: list[int]) -> None:
    silence, now = Silence(), 0.0
    for pause in pauses:
        beat, now = now, now + pause
        assert silence.observe(now, beat) <= STALE_SECONDS


@pytest.mark.medium
def test_the_age_is_by_the_clock_of_the_store(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's clock is two days wrong, and it does not matter."""
    wrong = time.time() - 2 * 86_400
    heartbeat, silence = storage.join(folder, "heartbeat"), Silence()
    storage.write_bytes(heartbeat, b"")
    monkeypatch.setattr(time, "time", lambda: wrong)
    assert observe(silence, heartbeat) == 0
    time.sleep(1.2)
    waited = observe(silence, heartbeat)
    assert 1 <= waited < 86_400
    storage.write_bytes(heartbeat, b"")
    assert observe(silence, heartbeat) < waited


def test_a_store_that_cannot_be_read_is_not_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat, silence = tmp_path / "heartbeat", Silence()
    heartbeat.touch()
    observe(silence, str(heartbeat))
    os.utime(heartbeat, (0, 0))

    def unreachable(uri: str) -> float:
        raise CosyFlowError(f"{uri}: connection refused")

    with monkeypatch.context() as outage:
        outage.setattr(storage, "modified", unreachable)
        assert observe(silence, str(heartbeat)) == 0
    assert observe(silence, str(heartbeat)) == 0, "counts again from the end of the outage"
    time.sleep(0.3)
    assert 0.2 < observe(silence, str(heartbeat)) < STALE_SECONDS


@pytest.mark.medium
def test_in_real_time_a_run_left_alone_is_told_once(tmp_path: Path) -> None:
    heartbeat = tmp_path / "heartbeat"
    reasons: list[str] = []
    told = threading.Event()

    def on_stale(reason: str) -> None:
        reasons.append(reason)
        told.set()

    with watching(str(heartbeat), on_stale, interval_seconds=0.1, stale_seconds=4):
        for _ in range(10):
            heartbeat.touch()
            time.sleep(0.15)
        assert not reasons
        assert told.wait(120)
        time.sleep(0.3)
    assert len(reasons) == 1
    assert f"{heartbeat} was not renewed" in reasons[0]


def test_without_a_heartbeat_nobody_watches() -> None:
    with watching("", pytest.fail):
        assert not [thread for thread in threading.enumerate() if thread.name == "heartbeat"]


def test_a_run_left_alone_saves_and_says_why(tmp_path: Path) -> None:
    stop = StopRequest()
    stop.ask("nobody follows this run")
    _, ending = run(str(tmp_path), conf(), stop=stop)
    assert (ending.finished, ending.reason) == (False, "nobody follows this run")
    assert list_checkpoints(str(tmp_path))[-1].has_state
