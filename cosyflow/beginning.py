"""The first thing that a program of ours does: it learns to be interrupted, before it imports what takes time.

Nothing is imported here that takes any: `signal` itself, for its enumerations, takes milliseconds.
"""

import _signal  # type: ignore[import-not-found]
import os

INTERRUPTED = 130
"""Exit status: 128 and SIGINT."""
_listener: list[int] = []
"""The process that listens."""


def listen() -> None:
    """From here on Ctrl-C ends the process at once, with one line; `cosyflow.cli.ending` replaces that.

    A process that ignores it, as the background jobs of shells do, goes on to ignore it.
    """
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _listener[:] = [os.getpid()]
        _signal.signal(_signal.SIGINT, end_at_once)


def end_at_once(number: int, frame: object) -> None:
    """The handler of the signal."""
    if os.getpid() == _listener[0]:  # a forked process leaves the word to its parent
        os.write(2, b"interrupted; the same command begins again\n")
    os._exit(INTERRUPTED)
