"""A request to end a training: it then saves a checkpoint and leaves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """Whether this process was asked to end: by SIGTERM, SIGINT or `ask`."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""

    def ask(self, reason: str) -> None:
        """Asks for the end for a reason that is shown when it has come."""
        self.reason = reason
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Listens while the `with` body runs."""
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            signal.signal(number, lambda *_: self._event.set())
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
