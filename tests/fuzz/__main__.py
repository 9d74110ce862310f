"""Gives one reader damaged files until the time is over: `python -m tests.fuzz TARGET [--seconds S] [--seed N]`.

Whatever a reader raises that is no CosyFlowError ends it with status 1; so does an input that takes too long, or too
much memory. The smallest such input stays in a folder, which it names.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st

from cosyflow.errors import CosyFlowError
from tests.fuzz.documents import Document
from tests.fuzz.mutations import CHANGES, EDITS, changed, damaged
from tests.fuzz.targets import TARGETS, Target

EXAMPLES_PER_ROUND = 200
LONGEST_SECONDS = 60
"""An input that takes longer counts as a reader that does not end. The machine may be busy."""
MOST_MEMORY = 1 << 30
ADDRESS_SPACE = 6 << 30
"""Beyond what the process has when it begins: keeps the machine from harm."""


class TooMuchMemoryError(Exception):
    """The process has grown beyond MOST_MEMORY."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    count, problem = fuzz(TARGETS[args.target], place, args.seconds, args.seed)
    print(f"{args.target}: {count} inputs in {args.seconds:g} s")
    if problem is None:
        shutil.rmtree(place)
        return 0
    traceback.print_exception(problem)
    print(f"{args.target}: {type(problem).__name__}: {problem}; its input is in {place}", file=sys.stderr)
    return 1


def fuzz(target: Target, place: Path, seconds: float, seed: int) -> tuple[int, Exception | None]:
    """How many inputs were read in that time, and what came of the smallest that failed."""
    seeds = target.make(place)
    with silence():
        target.read(place)  # what is not damaged is read
    _limit()
    count, failed = 0, False
    before, until = _memory(), time.monotonic() + seconds

    def read(name: str, content: bytes) -> None:
        nonlocal count, failed
        if time.monotonic() > until and not failed:
            return
        count += 1
        path = place / name
        path.write_bytes(content)
        faulthandler.dump_traceback_later(LONGEST_SECONDS, exit=True)
        try:
            with silence():
                target.read(place)
        except CosyFlowError:
            pass
        except Exception:
            failed = True
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()
        if _memory() - before > MOST_MEMORY:
            failed = True
            raise TooMuchMemoryError(f"{_memory() >> 20} MiB")
        path.write_bytes(seeds[name].content)

    for number in itertools.count(seed):
        for name, valid in seeds.items():
            if time.monotonic() > until:
                return count, None
            try:
                _attack(number, name, valid, read)
            except Exception as problem:
                return count, problem
    raise AssertionError


def _attack(number: int, name: str, valid: Document, read: Callable[[str, bytes], None]) -> None:
    """A round of examples of one file."""
    edited = st.lists(EDITS, min_size=1, max_size=4).map(lambda edits: damaged(valid.content, edits))
    contents = edited
    if valid.value is not None:
        documents: st.SearchStrategy[Any] = st.lists(CHANGES, min_size=1, max_size=3).map(
            lambda changes: changed(valid.value, changes)
        )
        contents = st.one_of(edited, documents.map(valid.dumped))

    @hypothesis.seed(number)
    @hypothesis.settings(
        max_examples=EXAMPLES_PER_ROUND,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
    )
    @hypothesis.given(contents)
    def attack(content: bytes) -> None:
        read(name, content)

    attack()


@contextmanager
def silence() -> Iterator[None]:
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _limit() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _memory() -> int:
    """The most that the process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    sys.exit(main())
