"""One process works in a folder at a time; who ends without a word is followed, and who stood still writes nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cosyflow import lease, storage
from cosyflow.errors import CosyFlowError, OutageError
from cosyflow.lease import Claim, Holder, OvertakenError, Records, Times, held
from cosyflow.processes import HOST, has_ended, this_process

REPOSITORY = Path(__file__).resolve().parents[3]
QUICK = Times(renew=0.1, silent=1.0, look=0.1)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def far(what: str = "some work", run: str = "") -> Holder:
    """Somebody on another machine."""
    return Holder(what, host="far", process="", run=run)


Starter = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Starter]:
    """Starts processes that want the lease of a folder; they are gone when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def _start(folder: str, name: str, *options: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.unit.core.lease_holder", folder, name, *map(str, options)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=REPOSITORY, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield _start
    for process in started:
        process.kill()
        process.communicate()


def wait_for(folder: str, text: str) -> None:
    made, deadline = storage.join(folder, "made.txt"), time.monotonic() + 20
    while not (storage.exists(made) and text in storage.read_text(made)):
        assert time.monotonic() < deadline, f"no {text}"
        time.sleep(0.05)


def test_a_file_is_created_once(folder: str) -> None:
    uri = storage.join(folder, "inner", "file")
    assert [storage.create(uri, b"one"), storage.create(uri, b"two")] == [True, False]
    assert storage.read_bytes(uri) == b"one"
    assert storage.creates_once(folder)


@pytest.mark.medium
def test_a_store_that_overwrites_is_known(
    s3_folder: str, s3_overwriting: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not storage.creates_once(s3_folder)
    assert storage.list_files(storage.join(s3_folder, storage.LEASES)) == []
    with held(s3_folder, "work"), held(s3_folder, "work"):  # nobody waits
        storage.write_text(storage.join(s3_folder, "file"), "text")
    assert storage.list_files(storage.join(s3_folder, storage.LEASES)) == []


def test_listings_do_not_show_leases(folder: str) -> None:
    with held(folder, "work"):
        storage.write_text(storage.join(folder, "inner", "file"), "text")
        assert [file.path for file in storage.list_files(folder)] == ["inner/file"]
        assert list(storage.fingerprints(folder)) == ["inner/file"]


def test_work_that_writes_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), held(str(tmp_path / "a" / "b"), "work"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_numbers_grow_from_holder_to_holder(folder: str) -> None:
    for number in (1, 2, 3):
        with held(folder, "work"):
            storage.write_text(storage.join(folder, "file"), "text")
            assert Records(folder).numbers() == [number]
    assert Records(folder).numbers() == [3]


def test_different_folders_and_names_do_not_touch_each_other(folder: str) -> None:
    with held(storage.join(folder, "a"), "x"), held(storage.join(folder, "b"), "x"), held(folder, "x", name="training"):
        assert Records(storage.join(folder, "a")).newest() == 1


@pytest.mark.medium
def test_the_second_waits_for_the_first_and_says_so(folder: str, start: Starter) -> None:
    first = start(folder, "first", "--seconds", 5)
    wait_for(folder, "first begins")
    second = start(folder, "second")
    out, err = second.communicate(timeout=30)
    assert second.returncode == 0, err
    assert f"[second] waits for process {first.pid} on {HOST}, which does the same some work" in out
    assert storage.read_text(storage.join(folder, "made.txt")).split("\n")[:-1] == [
        "first begins", "first ends", "second begins", "second ends",
    ]  # fmt: skip


@pytest.mark.medium
def test_eight_processes_take_turns(folder: str, start: Starter) -> None:
    processes = [start(folder, f"p{number}", "--seconds", 0.05) for number in range(8)]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    lines = storage.read_text(storage.join(folder, "made.txt")).splitlines()
    assert len(lines) == 16
    assert all(lines[place].replace("begins", "ends") == lines[place + 1] for place in range(0, 16, 2))


@pytest.mark.medium
def test_a_killed_process_of_this_machine_is_followed_at_once(folder: str, start: Starter) -> None:
    first = start(folder, "first", "--seconds", 60)
    wait_for(folder, "first begins")
    first.kill()
    first.wait()
    begin = time.monotonic()
    assert start(folder, "second").wait(20) == 0
    assert time.monotonic() - begin < 10
    assert "second ends" in storage.read_text(storage.join(folder, "made.txt"))


@pytest.mark.medium
def test_a_killed_process_of_another_machine_is_followed_after_its_silence(folder: str, start: Starter) -> None:
    first = start(folder, "first", "--seconds", 60, "--elsewhere", "--silent", 3)
    wait_for(folder, "first begins")
    first.kill()
    first.wait()
    begin = time.monotonic()
    assert start(folder, "second", "--silent", 3).wait(30) == 0
    assert time.monotonic() - begin > 3


@pytest.mark.medium
def test_a_process_that_stood_still_is_overtaken_and_writes_nothing(folder: str, start: Starter) -> None:
    first = start(folder, "first", "--seconds", 2, "--silent", 2)
    wait_for(folder, "first begins")
    os.kill(first.pid, signal.SIGSTOP)
    second = start(folder, "second", "--silent", 2)
    assert second.wait(30) == 0
    made = storage.read_text(storage.join(folder, "made.txt"))
    os.kill(first.pid, signal.SIGCONT)
    _, err = first.communicate(timeout=20)
    assert first.returncode == 1
    assert "stood still" in err
    assert "(lease 2, ours was 1)" in err
    assert storage.read_text(storage.join(folder, "made.txt")) == made


@pytest.mark.medium
def test_a_short_pause_costs_nothing(folder: str, start: Starter) -> None:
    first = start(folder, "first", "--seconds", 1)
    wait_for(folder, "first begins")
    os.kill(first.pid, signal.SIGSTOP)
    time.sleep(0.5)
    os.kill(first.pid, signal.SIGCONT)
    assert first.wait(20) == 0


def test_a_living_holder_keeps_the_lease_for_as_long_as_it_renews(folder: str, clock: Clock) -> None:
    times = Times(clock=clock)
    mine = Claim(Records(folder), far("long work"), times).attempt()
    assert mine is not None
    other = Claim(Records(folder), Holder("long work"), times)
    for second in range(120):
        clock.now += 1
        if second % 5 == 0:
            mine.renew()
        assert other.attempt() is None
    mine.check()


def test_a_silent_holder_is_followed_within_a_minute(folder: str, clock: Clock) -> None:
    times = Times(clock=clock)
    mine = Claim(Records(folder), far(), times).attempt()
    clock.now += 3600  # nobody has watched so far
    other = Claim(Records(folder), Holder("work"), times)
    start = clock.now
    while (taken := other.attempt()) is None:
        clock.now += 1
    assert lease.SILENT_SECONDS <= clock.now - start < 60
    assert taken.number == 2
    assert mine is not None
    with pytest.raises(OvertakenError, match=r"has taken over \(lease 2, ours was 1\)"):
        mine.check()


@pytest.mark.medium
def test_after_an_outage_the_count_starts_again(
    s3_folder: str, s3_endpoint: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = Times(clock=clock)
    mine = Claim(Records(s3_folder), far(), times).attempt()
    other = Claim(Records(s3_folder), Holder("work"), times)
    for _ in range(25):
        clock.now += 1
        assert other.attempt() is None
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    clock.now += 4
    assert other.attempt() is None
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
    for _ in range(29):  # the holder could not renew meanwhile
        clock.now += 1
        assert other.attempt() is None
    assert mine is not None
    mine.renew()
    mine.check()


@pytest.mark.medium
def test_an_outage_that_lasts_ends_the_waiting(s3_folder: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    claim = Claim(Records(s3_folder), Holder("work"), Times(clock=clock))
    for _ in range(3):
        assert claim.attempt() is None
        clock.now += 50
    with pytest.raises(OutageError, match="EndpointConnectionError"):
        claim.attempt()


def test_an_observer_that_stood_still_starts_its_count_again(folder: str, clock: Clock) -> None:
    times = Times(clock=clock)
    Claim(Records(folder), far(), times).attempt()
    other = Claim(Records(folder), Holder("work"), times)
    assert other.attempt() is None
    clock.now += 300
    assert other.attempt() is None


def test_a_task_that_its_run_starts_again_need_not_wait(folder: str) -> None:
    assert Claim(Records(folder), far(run="run-1")).attempt() is not None
    assert Claim(Records(folder), Holder("work", run="run-2")).attempt() is None
    assert Claim(Records(folder), Holder("work", run="run-1")).attempt() is not None


def test_what_holders_left_is_removed_by_the_next(tmp_path: Path) -> None:
    place = tmp_path / storage.LEASES
    for name in (".work.1.0123456789ab.part", ".training.1.0123456789ab.part", "work.1"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("")
    times = Times(silent=0.0)
    assert Claim(Records(str(tmp_path)), Holder("work"), times).attempt() is not None
    assert sorted(file.name for file in place.iterdir()) == [".training.1.0123456789ab.part", "work.2"]


def test_a_failure_after_being_overtaken_tells_that(folder: str) -> None:
    def fail() -> None:
        Claim(Records(folder), Holder("work"), Times(silent=0.0)).attempt()
        time.sleep(0.5)
        raise CosyFlowError("a file is gone")

    with pytest.raises(OvertakenError, match="has taken over"), held(folder, "work", times=QUICK):
        fail()


def test_only_a_process_that_is_gone_for_certain_has_ended() -> None:
    assert not has_ended(this_process())
    assert not has_ended("")
    assert not has_ended("another place pid 1 started 5")
    place, _, _ = this_process().rpartition(" pid ")
    assert has_ended(f"{place} pid {os.getpid()} started 1"), "an earlier one with our number"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        name = f"{place} pid {child.pid} started {started(child.pid)}"
        assert not has_ended(name)
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(10)
        assert has_ended(name)


def started(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
