"""Ends a training run that nobody follows any more.

Whoever launched the run renews an object in the store, its heartbeat. The first rank compares the newest beat with a
probe that it writes itself: both times are the store's, so no two clocks have to agree.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cosyflow import storage
from cosyflow.errors import CosyFlowError

BEAT_SECONDS = 15.0
STALE_SECONDS = 75.0
WATCH_SECONDS = 5.0
"""How often the beat is looked at: what is gained goes to the checkpoint, for the end is due within two minutes."""
HEARTBEAT_FILE = "heartbeat"
PROBE_SUFFIX = "-probe"
HEARTBEAT_VARIABLE = "COSYFLOW_HEARTBEAT"
"""Names the heartbeat to a training process; without it nobody watches."""


class Silence:
    """How long there was no beat, as far as can be known: the time when the store was unreachable does not count."""

    def __init__(self) -> None:
        self._since: float | None = None

    def reset(self) -> None:
        """The store cannot be read, so nothing is known; the count starts again with the next observation."""
        self._since = None

    def observe(self, now: float, beat: float | None) -> float:
        """The seconds of silence, for the store's time now and that of the newest beat (None: there is none)."""
        if self._since is None:
            self._since = now
        return now - max(self._since, -math.inf if beat is None else beat)


def observe(silence: Silence, heartbeat: str) -> float:
    """Looks at the store once: the seconds of silence, 0 when it cannot be read or written."""
    probe = heartbeat + PROBE_SUFFIX
    try:
        with storage.impatient():  # waiting out an outage would look like silence of the launcher
            storage.write_bytes(probe, b"")
            now = storage.modified(probe)
            beat = storage.modified(heartbeat) if storage.exists(heartbeat) else None
    except CosyFlowError:
        silence.reset()
        return 0.0
    return silence.observe(now, beat)


@contextmanager
def watching(
    heartbeat: str,
    on_stale: Callable[[str], None],
    interval_seconds: float = WATCH_SECONDS,
    stale_seconds: float = STALE_SECONDS,
) -> Iterator[None]:
    """Watches a heartbeat in a thread while the `with` body runs; an empty `heartbeat` is not watched.

    Args:
        heartbeat: URI of the object that is renewed.
        on_stale: is called with the reason, once, when the newest beat is too old.
    """
    if not heartbeat:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        silence = Silence()
        while not ended.is_set():
            seconds = observe(silence, heartbeat)
            if seconds > stale_seconds:
                on_stale(f"nobody follows this run any more: {heartbeat} was not renewed for {seconds:.0f} s")
                return
            ended.wait(interval_seconds)

    thread = threading.Thread(target=watch, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
