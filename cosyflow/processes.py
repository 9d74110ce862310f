"""Which process this is and whose, and whether another one has ended for certain."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

HOST = socket.gethostname()
CACHES = {
    "XDG_CACHE_HOME": ".cache",
    "MPLCONFIGDIR": ".config/matplotlib",
    "TRITON_HOME": ".triton",
    "CUDA_CACHE_PATH": ".nv/ComputeCache",
}
"""What libraries keep in a home, by the variable that names another place for it."""


def this_process() -> str:
    """A name for this process that no other one has, on any machine; "" where the system does not give enough."""
    return _name_of(os.getpid())


def make_user_known() -> None:
    """Gives a user that the system does not know a name and a home: its number, and the place of temporary files.

    Containers run with any number, and libraries ask for both (PyTorch, MLflow). Where the home cannot be written, what
    libraries keep there goes to the place of temporary files too. That place is given to programs that are started from
    here: Python finds one where /tmp cannot be written, others (mktemp) do not look for it.

    Raises:
        FileNotFoundError: there is no such place.
    """
    temporary = tempfile.gettempdir()
    os.environ.setdefault("TMPDIR", temporary)
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())
    try:
        home = Path.home()
    except RuntimeError:
        home = Path(temporary)
        os.environ["HOME"] = temporary
    for variable, folder in CACHES.items():
        place = home / folder
        while not place.exists():
            place = place.parent
        if not os.access(place, os.W_OK):
            os.environ.setdefault(variable, str(Path(temporary) / f"cosyflow-user-{os.getuid()}" / folder))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Processes that are started in the `with` body leave Ctrl-C, which a terminal sends to all, to this one."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def has_ended(process: str) -> bool:
    """Whether the process of that name has ended. False also where that cannot be known from here.

    It can be known of a process that was started since this machine's start, in the container (process namespace) that
    we are in; the time of its start distinguishes it from a later one with the same number.
    """
    place, _, rest = process.rpartition(" pid ")
    number, _, started = rest.partition(" started ")
    if not place or place != _place() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    state, now = _state_of(int(number))
    return state in ("Z", "X") or (bool(now) and now != started)


@lru_cache(maxsize=1)
def _place() -> str:
    """The machine since its start, and the process namespace in it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{HOST} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _name_of(number: int) -> str:
    started = _state_of(number)[1]
    return f"{_place()} pid {number} started {started}" if _place() and started else ""


def _state_of(number: int) -> tuple[str, str]:
    """(state, time of the start in clock ticks since that of the machine) of a process; empty when not known."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return "", ""
