"""Every rank lets the others know what it is doing, and one of them warns when somebody keeps them waiting."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Protocol

from cosyflow.training.objective import Batch
from cosyflow.training.ranks import Ranks
from cosyflow.training.stalls import COMPUTES, READS, SAVES, WAITS, Doing, Seen, who_is_slow, who_stalls

POST_SECONDS = 5.0
ALARM_SHARE, END_SHARE = 0.5, 0.9
"""Of the time after which a collective operation fails: when a stall is named, and when the job is ended for it."""
UPDATES_COMPARED = 20
"""Of which a rank's own work is the mean."""
SECONDS_BETWEEN_WARNINGS = 600.0
"""Of one rank's being slow."""


class Store(Protocol):
    """What the ranks share: small values by name."""

    def set(self, key: str, value: str) -> None: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...


class Steps:
    """What this rank is doing. The loop says it; whoever asks gets a copy."""

    def __init__(self) -> None:
        self._doing = Doing()
        self._since = time.monotonic()
        self._work: deque[float] = deque(maxlen=UPDATES_COMPARED)
        self._own = 0.0
        self._lock = threading.Lock()

    def reads(self, update: int) -> None:
        """Begins an update."""
        with self._lock:
            if update != self._doing.update:
                self._work.append(self._own)
            self._own = 0.0
            self._enter(READS)
            self._doing.update = update

    def computes(self, batches: Sequence[Batch | None]) -> None:
        with self._lock:
            self._enter(COMPUTES)
            self._doing.utterances = [name for batch in batches if batch is not None for name in batch.utterances]

    def waits(self) -> None:
        """Comes to where all ranks meet: what follows takes as long as the last of them."""
        with self._lock:
            self._enter(WAITS)

    def saves(self) -> None:
        with self._lock:
            self._enter(SAVES)

    def now(self) -> Doing:
        with self._lock:
            full = len(self._work) == UPDATES_COMPARED
            work = sum(self._work) / UPDATES_COMPARED if full else 0.0
            return replace(self._doing, seconds=time.monotonic() - self._since, work=work)

    def _enter(self, phase: str) -> None:
        now = time.monotonic()
        if self._doing.phase in (READS, COMPUTES):
            self._own += now - self._since
        self._doing.phase, self._since = phase, now


@contextmanager
def watching_ranks(
    steps: Steps, ranks: Ranks, timeout_seconds: float, say: Callable[[str], None], end: Callable[[str], None]
) -> Iterator[None]:
    """Posts `steps` for the other ranks in a thread while the `with` body runs, and looks at what they post.

    The lowest rank that has not fallen silent speaks for all: of a stall once, when it has lasted for half the time
    after which a collective operation fails, and of a slow rank now and then. One rank has nobody to wait for.

    Args:
        timeout_seconds: after which a collective operation fails.
        say: takes a warning.
        end: ends the job with the reason, shortly before collective operations would fail without one.
    """
    store = _shared_store() if ranks.world_size > 1 else None
    if store is None:
        yield
        return
    ended = threading.Event()
    watch = _Watch(store, steps, ranks, timeout_seconds, say, end)

    def look() -> None:
        interval = min(POST_SECONDS, timeout_seconds / 20)
        while not ended.wait(interval):
            try:
                watch.look()
            except Exception:  # the store went with its host: what ends the job says why
                return

    thread = threading.Thread(target=look, name="ranks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


class _Watch:
    """One rank's view of all."""

    def __init__(
        self,
        store: Store,
        steps: Steps,
        ranks: Ranks,
        timeout_seconds: float,
        say: Callable[[str], None],
        end: Callable[[str], None],
    ) -> None:
        self._store, self._steps, self._ranks = store, steps, ranks
        self._timeout = timeout_seconds
        self._say, self._end = say, end
        self._posts = 0
        self._last: dict[int, tuple[str, float]] = {}
        self._is_stalled = False
        self._warned: dict[int, float] = {}

    def look(self) -> None:
        """Posts what this rank does, and says what is wrong if it is this rank's turn to speak."""
        self._posts += 1
        self._store.set(_key(self._ranks.rank), json.dumps({"post": self._posts, **asdict(self._steps.now())}))
        seen = self._others()
        speaker = min(
            (rank for rank, each in seen.items() if each.silent < self._timeout * ALARM_SHARE / 2), default=-1
        )
        if speaker != self._ranks.rank:
            return
        if reason := who_stalls(seen, self._timeout * END_SHARE):
            self._end(reason)
        alarm = who_stalls(seen, self._timeout * ALARM_SHARE)
        if alarm and not self._is_stalled:
            self._say(f"warning: {alarm}")
        self._is_stalled = bool(alarm)
        if not alarm:
            self._warn(who_is_slow(seen))

    def _warn(self, slow: Mapping[int, str]) -> None:
        now = time.monotonic()
        for rank, warning in slow.items():
            if now - self._warned.get(rank, -SECONDS_BETWEEN_WARNINGS) >= SECONDS_BETWEEN_WARNINGS:
                self._warned[rank] = now
                self._say(f"warning: {warning}")

    def _others(self) -> dict[int, Seen]:
        """What is known of every rank that has spoken yet."""
        seen, now = {}, time.monotonic()
        for rank in range(self._ranks.world_size):
            if not self._store.check([_key(rank)]):
                continue
            text = self._store.get(_key(rank)).decode()
            if self._last.get(rank, ("", 0.0))[0] != text:
                self._last[rank] = (text, now)
            doing = json.loads(text)
            doing.pop("post")
            seen[rank] = Seen(Doing(**doing), now - self._last[rank][1])
        return seen


def _key(rank: int) -> str:
    return f"cosyflow/doing/{rank}"


def _shared_store() -> Store | None:
    """A connection of our own to the store by which torchrun's processes found each other; None without one."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # they are not listed

    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not (address and port):
        return None
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store: Store = PrefixStore(attempt, TCPStore(address, int(port), is_master=False, wait_for_workers=False))
    return store
