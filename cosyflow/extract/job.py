"""Running a model over the utterances of a Kaldi folder: in parallel, resumable, with a reason for each that fails."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch

from cosyflow import __version__, storage
from cosyflow.corpus.kaldi import KaldiData
from cosyflow.errors import CosyFlowError, MachineError
from cosyflow.extract.model import OnnxModel, RunTime
from cosyflow.extract.parts import Parts
from cosyflow.processes import uninterrupted
from cosyflow.progress import Progress
from cosyflow.unexpected import UnexpectedError, describe, reading, write_traceback

UNIT_SIZE = 16  # utterances that a worker takes at a time
UNITS_PER_WORKER = 4  # handed out at a time, so that a long corpus does not lie in the queue as a whole
PROCESSES_FROM_UTTERANCES = 2000
DURATIONS = "utt2dur"


@dataclass(frozen=True)
class Item:
    """An utterance to work on: its name and the path or URI of its audio."""

    utt: str
    wav: str


@dataclass
class UnitResult:
    """What came of a unit: a list of numbers for each utterance that worked, a reason for each that did not."""

    values: dict[str, list[Any]] = field(default_factory=dict)
    rejects: dict[str, str] = field(default_factory=dict)
    run_time: RunTime = field(default_factory=RunTime)


class Extractor(Protocol):
    """A loaded model that works on one unit at a time, possibly in several threads at once."""

    @property
    def model(self) -> OnnxModel: ...

    def extract(self, items: Sequence[Item]) -> UnitResult: ...

    def loader(self) -> Callable[[int], Extractor]:
        """A function that can be sent to another process and loads the same model there, on the device of a number."""
        ...


@dataclass(frozen=True)
class Workers:
    """How many units are worked on at once, each in a process of its own or all in threads of this one.

    Decoding, Fourier transforms and ONNX Runtime all leave Python's lock, so on two cores two threads are as fast as
    two processes, and they need not start: a process takes as long for that as for hundreds of utterances.
    """

    count: int
    processes: bool = False

    @classmethod
    def choose(cls, num_threads: int, num_processes: int, utterances: int) -> Workers:
        """Processes when more than one is wanted and the corpus is large, else threads (0: one for each core)."""
        if num_threads < 0 or num_processes < 0:
            raise CosyFlowError("the numbers of threads and of processes must not be negative")
        if num_processes > 1 and utterances >= PROCESSES_FROM_UTTERANCES:
            return cls(num_processes, processes=True)
        return cls(num_threads or (num_processes if num_processes > 1 else len(os.sched_getaffinity(0))))

    def __str__(self) -> str:
        return f"{self.count} {'processes' if self.processes else 'threads'}"


def job_identity(kind: str, model_digest: str, data: KaldiData) -> str:
    """Digest of what the values of a job depend on; finished parts of other identities are not used."""
    listed = [[utterance.utt, utterance.wav] for utterance in data.utterances]
    content = json.dumps([kind, __version__, model_digest, listed])
    return hashlib.sha256(content.encode()).hexdigest()


def plan_units(data: KaldiData, directory: str) -> list[list[Item]]:
    """Cuts the utterances into units, the longest first where `utt2dur` has durations.

    Utterances of equal length come together, where a model can take them as one batch. The plan depends on the folder
    alone, so a resumed job forms the same batches.
    """
    durations = _read_durations(storage.join(directory, DURATIONS))
    ordered = sorted(data.utterances, key=lambda utterance: -durations.get(utterance.utt, 0.0))
    items = [Item(utterance.utt, utterance.wav) for utterance in ordered]
    return [items[start : start + UNIT_SIZE] for start in range(0, len(items), UNIT_SIZE)]


def run_job(
    units: Sequence[Sequence[Item]],
    extractor: Extractor,
    parts: Parts,
    workers: Workers,
    label: str,
) -> UnitResult:
    """Works on all units that no earlier run has finished.

    Args:
        extractor: works in the threads of this process; worker processes load copies of it.
        parts: what earlier runs have finished, and where this one keeps its pieces.
        label: of the progress lines.
    Returns:
        values and rejects of all utterances; the time is that of the utterances worked on now.
    """
    whole = UnitResult(values=parts.load())
    missing = [[item for item in unit if item.utt not in whole.values] for unit in units]
    with Progress(label, sum(map(len, units))) as progress, _pool(extractor, workers) as submit:
        progress.update(len(whole.values))
        for result in _results(submit, [unit for unit in missing if unit], workers.count * UNITS_PER_WORKER):
            whole.values |= result.values
            whole.rejects |= result.rejects
            whole.run_time += result.run_time
            parts.add(result.values)
            outside = f"{whole.run_time.outside_model:.0%}"
            progress.update(len(result.values) + len(result.rejects), **{"outside ONNX": outside})
    return whole


Work = Callable[[Sequence[Item]], UnitResult]
Submit = Callable[[Sequence[Item]], "Future[UnitResult]"]


def _results(submit: Submit, units: Sequence[Sequence[Item]], in_flight: int) -> Iterator[UnitResult]:
    """Results as they come, with at most `in_flight` units handed out; the first exception ends the job."""
    waiting = iter(units)
    running: set[Future[UnitResult]] = set()
    while True:
        while len(running) < in_flight and (unit := next(waiting, None)) is not None:
            running.add(submit(unit))
        if not running:
            return
        finished, running = wait(running, return_when=FIRST_COMPLETED)
        for future in sorted(finished, key=lambda future: future.exception() is not None):
            try:
                result = future.result()  # what worked first, so that it is kept when another unit failed
            except BrokenProcessPool:
                raise MachineError(
                    "a worker process was killed; did the machine have too little memory? the same command goes on,"
                    " also with fewer --num_processes"
                ) from None
            yield result


@contextmanager
def _pool(extractor: Extractor, workers: Workers) -> Iterator[Submit]:
    """A pool of threads of this process, or of processes; torch uses one core in each worker meanwhile."""
    torch_threads = torch.get_num_threads()
    executor: Executor
    if workers.processes:
        context = multiprocessing.get_context("spawn")
        started = context.Value("i", 0)
        executor = ProcessPoolExecutor(workers.count, context, _start_process, (extractor.loader(), started))
        work: Work = _extract_in_process
    else:
        torch.set_num_threads(1)
        executor = ThreadPoolExecutor(workers.count)
        work = partial(_extract, extractor)
    try:
        yield lambda unit: _submit(executor, work, unit)
    finally:
        executor.shutdown(cancel_futures=True)
        torch.set_num_threads(torch_threads)


def _submit(
    executor: Executor, work: Callable[[Sequence[Item]], UnitResult], unit: Sequence[Item]
) -> Future[UnitResult]:
    with uninterrupted():  # it may start processes
        return executor.submit(work, unit)


def _extract(extractor: Extractor, unit: Sequence[Item]) -> UnitResult:
    """Works on a unit. An error that nobody foresaw names the utterance."""
    start = time.perf_counter()
    try:
        result = extractor.extract(unit)
    except CosyFlowError:
        raise
    except Exception as error:
        if len(unit) > 1:
            for item in unit:  # the one that fails by itself too
                _extract(extractor, [item])
        where = f"{unit[0].utt} ({unit[0].wav})" if len(unit) == 1 else f"{unit[0].utt} to {unit[-1].utt}, all at once"
        log = write_traceback(error)
        raise UnexpectedError(f"utterance {where}: {describe(error)}; its traceback is in {log}") from error
    result.run_time.total += time.perf_counter() - start
    return result


_of_this_process: list[Extractor] = []


def _start_process(load: Callable[[int], Extractor], started: Any) -> None:
    """Loads the worker process's own model; processes are spread over the devices by the order of their start."""
    torch.set_num_threads(1)
    with started.get_lock():
        number = started.value
        started.value += 1
    _of_this_process.append(load(number))


def _extract_in_process(unit: Sequence[Item]) -> UnitResult:
    return _extract(_of_this_process[0], unit)


def _read_durations(path: str) -> dict[str, float]:
    """Seconds by utterance; an absent file means that none is known."""
    if not storage.exists(path):
        return {}
    lines = (line.split() for line in storage.read_text(path).splitlines())
    with reading(path, "durations in seconds by utterance", "remove it, or run the stage prepare again"):
        return {fields[0]: float(fields[1]) for fields in lines if len(fields) == 2}
