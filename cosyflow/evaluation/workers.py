"""Processes that an evaluation's work is shared out over."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from cosyflow.errors import CosyFlowError
from cosyflow.progress import Progress

Task = TypeVar("Task")
Result = TypeVar("Result")
LOOK_SECONDS = 1.0


class Workers:
    """Runs a function over tasks, in this process or in several others.

    What a function loads it keeps in its module for the next task.
    """

    def __init__(self, pool: ProcessPoolExecutor | None) -> None:
        self._pool = pool

    def map(self, label: str, function: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
        """The results in the order of the tasks. The first error ends the work; what was finished lies on disk.

        Raises:
            CosyFlowError: a process was killed.
        """
        if not tasks:
            return []
        with Progress(label, len(tasks)) as progress:
            if self._pool is None:
                return [_counted(function(task), progress) for task in tasks]
            futures = [self._pool.submit(function, task) for task in tasks]
            try:
                for future in as_completed(futures):
                    future.result()
                    progress.update()
            except BrokenProcessPool as error:
                raise CosyFlowError(
                    f"{label}: a process was killed, perhaps for want of memory; fewer with --num_processes 1, and the"
                    " same command goes on"
                ) from error
            finally:
                for future in futures:
                    future.cancel()
            return [future.result() for future in futures]


@contextmanager
def workers(count: int) -> Iterator[Workers]:
    """Workers for the `with` body: 1 is this process itself, 0 a process for each core."""
    count = count or len(os.sched_getaffinity(0))
    if count == 1:
        yield Workers(None)
        return
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start, (os.getpid(), threads))
    try:
        yield Workers(pool)
    finally:
        pool.shutdown(cancel_futures=True)


def _counted(result: Result, progress: Progress) -> Result:
    progress.update()
    return result


def _start(parent: int, threads: int) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> Any:
    """Ends this process when the one that started it was killed, which otherwise it would wait for."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)
