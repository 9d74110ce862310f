"""Whatever the order of the steps of several processes, and whoever stands still: at most one of them commits."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.lease import Claim, Holder, Lease, OvertakenError, Records, Times

PROCESSES = 3


class Ended(BaseException):
    """The example is over."""


class Turns:
    """Lets a thread go on from one request to the store to the next when it is told to."""

    def __init__(self) -> None:
        self._may_go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self.is_over = False

    def request(self) -> None:
        """Called by the thread before each request."""
        self._waits.release()
        self._may_go.acquire()
        if self.is_over:
            raise Ended

    def step(self) -> None:
        """Lets the thread make one request, and go on to the next."""
        self._may_go.release()
        self._waits.acquire()

    def start(self, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
                while True:  # it is done, and makes no request any more
                    self.request()
            except Ended:
                self._waits.release()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._waits.acquire()
        return thread

    def end(self) -> None:
        self.is_over = True
        self._may_go.release()


class SteppedRecords(Records):
    """The files of a lease in a real folder, each request in its turn."""

    def __init__(self, folder: str, turns: Turns) -> None:
        super().__init__(folder)
        self._turns = turns

    def numbers(self) -> list[int]:
        self._turns.request()
        return super().numbers()

    def read(self, number: int) -> bytes:
        self._turns.request()
        return super().read(number)

    def create(self, number: int, content: bytes) -> bool:
        self._turns.request()
        return super().create(number, content)

    def write(self, number: int, content: bytes) -> None:
        self._turns.request()
        super().write(number, content)


class World:
    """Processes that want to do the same work once, on a clock that the example sets."""

    def __init__(self, folder: str) -> None:
        self.now = 0.0
        self.commits: list[int] = []
        self.overtaken: list[int] = []
        self.turns = [Turns() for _ in range(PROCESSES)]
        self.threads = [
            turns.start(lambda number=number, turns=turns: self.work(number, folder, turns))  # type: ignore[misc]
            for number, turns in enumerate(self.turns)
        ]

    def work(self, number: int, folder: str, turns: Turns) -> None:
        times = Times(clock=lambda: self.now)
        claim = Claim(SteppedRecords(folder, turns), Holder("work", host=f"host {number}", process="", run=""), times)
        lease: Lease | None = None
        while lease is None:
            lease = claim.attempt()
        if self.commits:  # somebody has done it meanwhile
            lease.release()
            return
        lease.renew()
        lease.renew()
        try:
            lease.check()
        except OvertakenError:
            self.overtaken.append(number)
            return
        self.commits.append(number)
        lease.release()

    def end(self) -> None:
        for turns in self.turns:
            turns.end()
        for thread in self.threads:
            thread.join(5)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.integers(0, PROCESSES - 1), st.integers(1, 6)),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 6.0, 9.0]), st.integers(1, 8)),
    ),
    max_size=120,
)


def follow(world: World, steps: list[tuple[str, Any, int]]) -> None:
    for kind, what, times in steps:
        for _ in range(times):
            if kind == "step":
                world.turns[what].step()
            else:
                world.now += what


@settings(max_examples=120, deadline=None)
@given(steps=STEPS)
def test_at_most_one_commits(steps: list[tuple[str, Any, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(folder)
        try:
            follow(world, steps)
            assert len(world.commits) <= 1
            for _ in range(120):  # whatever happened, the work is done in the end
                for turns in world.turns:
                    turns.step()
                world.now += 1.0
            assert len(world.commits) == 1 or len(world.overtaken) == PROCESSES
        finally:
            world.end()


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_nobody_is_overtaken_as_long_as_all_go_on(steps: list[tuple[str, Any, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(folder)
        try:
            for kind, what, times in steps:
                if kind == "step":
                    follow(world, [(kind, what, times)])
                for turns in world.turns:
                    turns.step()
                world.now += 1.0
            assert world.overtaken == []
        finally:
            world.end()
