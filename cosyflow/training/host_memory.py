"""How a process that trains on a CPU gets its memory."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Lets glibc keep what is freed instead of giving it back to the kernel; whether it will.

    By default an activation of over 32 MB is mapped anew each time, and the kernel clears every page of it at the
    first touch: 1.2 million page faults in a step of 8,000 tokens of the language model in tests/bench/llm.py.
    The price is that the process never gets smaller (mallopt(3)).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
