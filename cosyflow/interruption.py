"""Signals that are raised as exceptions, but not while an extension module is loaded.

Its initialisation is C++ that calls back into Python; an exception there ends the process with `terminate called after
throwing ...`, and without the tidying up that the exception is for.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from importlib.machinery import ExtensionFileLoader
from types import FrameType

from cosyflow.beginning import end_at_once

AGAIN_SECONDS = 0.05
LONGEST_SECONDS = 60.0
"""What takes longer to load is interrupted all the same."""
LOADS = ("create_module", "exec_module")


class Raising:
    """A handler that raises an exception; while a module loads, afterwards. A second Ctrl-C then ends the process."""

    def __init__(self, exception: type[BaseException]) -> None:
        self.exception = exception
        self.since: float | None = None
        """When the signal came that waits for the end of the loading."""
        self.is_repeated = False
        """Whether the signal that comes next is the one that waits."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        is_repeated, self.is_repeated = self.is_repeated, False
        now = time.monotonic()
        if not is_loading(frame) or (self.since is not None and now - self.since > LONGEST_SECONDS):
            self.since = None
            raise self.exception
        if self.since is None:
            self.since = now
        elif not is_repeated and number == signal.SIGINT:
            end_at_once(number, frame)
        timer = threading.Timer(AGAIN_SECONDS, self._repeat, [number])
        timer.daemon = True
        timer.start()

    def _repeat(self, number: int) -> None:
        self.is_repeated = True
        os.kill(os.getpid(), number)


def is_loading(frame: FrameType | None) -> bool:
    """Whether the code that a frame is of is called by an extension module that is loaded."""
    while frame is not None:
        if frame.f_code.co_name in LOADS and isinstance(frame.f_locals.get("self"), ExtensionFileLoader):
            return True
        frame = frame.f_back
    return False
