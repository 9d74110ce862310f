"""Memory that is freed and taken again costs no page faults in a training process on a CPU."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

TAKE_AND_FREE = """
import resource
import torch
from cosyflow.backends import keep_freed_memory

if {keep}:
    assert keep_freed_memory()
for _ in range(10):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 10 * 2**24 * 4 // 4096


def page_faults(keep: bool) -> int:
    """Of a process that takes and frees 64 MB ten times."""
    command = [sys.executable, "-c", TAKE_AND_FREE.format(keep=keep)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
@pytest.mark.medium
def test_kept_memory_is_not_mapped_again() -> None:
    assert page_faults(keep=True) < PAGES / 100
    assert page_faults(keep=False) > PAGES / 2
