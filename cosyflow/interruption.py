"""Signals that are raised as exceptions, but not in the middle of an import.

An extension module is C++ whose initialisation calls back into Python; an exception there ends the process with
`terminate called after throwing ...`, and without the tidying up that the exception is for.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from cosyflow.beginning import end_at_once

AGAIN_SECONDS = 0.05
LONGEST_SECONDS = 60.0
"""An import that takes longer is interrupted all the same."""
IMPORT = "<frozen importlib"
"""What the files of Python's own import system are called in frames."""


class Raising:
    """A handler that raises an exception; during an import when that has ended. A second Ctrl-C ends the process."""

    def __init__(self, exception: type[BaseException]) -> None:
        self.exception = exception
        self.since: float | None = None
        """When the signal came that waits for the end of an import."""
        self.is_repeated = False
        """Whether the signal that comes next is the one that waits."""

    def __call__(self, number: int, frame: FrameType | None) -> None:
        is_repeated, self.is_repeated = self.is_repeated, False
        now = time.monotonic()
        if not is_importing(frame) or (self.since is not None and now - self.since > LONGEST_SECONDS):
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


def is_importing(frame: FrameType | None) -> bool:
    """Whether the code that a frame is of is called by an import."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORT):
            return True
        frame = frame.f_back
    return False
