"""The launcher's heartbeat: a sign in the store that somebody follows the run."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.training.heartbeat import BEAT_SECONDS


@contextmanager
def beating(heartbeat: str, report: Callable[[str], None], interval_seconds: float = BEAT_SECONDS) -> Iterator[None]:
    """Renews the object every few seconds while the `with` body runs.

    Args:
        heartbeat: URI of the object.
        report: is called when the store becomes unreachable, and when it is back.

    Raises:
        CosyFlowError: the first beat cannot be written.
    """
    ended = threading.Event()

    def beat(number: int) -> None:
        with storage.impatient():  # the next beat is a better attempt than a late one
            storage.write_bytes(heartbeat, json.dumps({"beat": number, "launcher": socket.gethostname()}).encode())

    def renew() -> None:
        number, reachable = 0, True
        while not ended.wait(interval_seconds):
            number += 1
            try:
                beat(number)
            except CosyFlowError as error:
                if reachable:
                    report(f"cannot renew the heartbeat: {error}")
                reachable = False
            else:
                if not reachable:
                    report("renews the heartbeat again")
                reachable = True

    beat(0)
    thread = threading.Thread(target=renew, name="heart", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(interval_seconds)
