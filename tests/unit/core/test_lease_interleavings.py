"""Whatever the order of the steps of several processes, and whoever stands still: at most one of them commits."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
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
        for _ in range(number):  # one process ends before the first renewal
            lease.renew()
        turns.request()  # the work
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


MOVES = st.lists(
    st.tuples(
        st.integers(0, PROCESSES - 1),
        st.sampled_from([1, 2, 4, 8]),
        st.integers(1, 4),
        st.sampled_from([0.0, 1.0, 6.0]),
    ),
    max_size=12,
)
"""(process, rounds, requests of it in each, seconds after each): all others stand still meanwhile."""


def follow(world: World, moves: list[tuple[int, int, int, float]]) -> None:
    for process, rounds, requests, seconds in moves:
        for _ in range(rounds):
            for _ in range(requests):
                world.turns[process].step()
            world.now += seconds


@settings(max_examples=200, deadline=None)
@given(moves=MOVES)
@example(moves=[(0, 4, 1, 0.0), (1, 8, 4, 6.0)])  # the first takes it, and stands still until the second is done
@pytest.mark.medium
def test_at_most_one_commits(moves: list[tuple[int, int, int, float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(folder)
        try:
            follow(world, moves)
            assert len(world.commits) <= 1
            for _ in range(120):  # whatever happened, the work is done in the end
                for turns in world.turns:
                    turns.step()
                world.now += 1.0
            assert len(world.commits) == 1 or len(world.overtaken) == PROCESSES
        finally:
            world.end()


@pytest.mark.medium
@settings(max_examples=60, deadline=None)
@given(order=st.lists(st.tuples(st.permutations(range(PROCESSES)), st.sampled_from([0.0, 1.0, 2.0])), max_size=60))
def test_nobody_is_overtaken_as_long_as_all_go_on(order: list[tuple[list[int], float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(folder)
        try:
            for processes, seconds in order:
                for process in processes:
                    world.turns[process].step()
                world.now += seconds
            assert world.overtaken == []
        finally:
            world.end()
