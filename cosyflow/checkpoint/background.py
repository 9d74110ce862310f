"""Writes checkpoints while the training goes on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from cosyflow.checkpoint.state import Position, Snapshot
from cosyflow.checkpoint.writer import CheckpointWriter
from cosyflow.errors import PlaceError


class BackgroundWriter:
    """Hands checkpoints to a writer in a thread of its own, one at a time, in their order. Only rank 0 has one.

    A disk that is full or a store that does not answer costs the checkpoint that was to be written, and never those
    before: it is said once, the training goes on, and the next checkpoint tries again. Any other failure ends the
    training at the next checkpoint.

    It is a context manager: the end of the body waits for what is being written, whatever ended it, and raises what
    kept the last checkpoint from being written.

    Args:
        writer: writes one checkpoint.
        log: takes a line for the user.
    """

    def __init__(self, writer: CheckpointWriter, log: Callable[[str], None]) -> None:
        self._writer = writer
        self._log = log
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._written: Future[object] | None = None
        self._name = ""
        self._last_good = ""
        self._is_failing = False

    def save(self, snapshot: Snapshot, position: Position, fingerprint: str, record: Mapping[str, Any]) -> None:
        """Begins to write a checkpoint when the one before is written.

        Args:
            snapshot: what the engine gathered; nothing may change it afterwards.
            position, fingerprint, record: see `CheckpointWriter.save`; they may be changed afterwards.

        Raises:
            CosyFlowError: the one before failed, and not for its place.
        """
        try:
            self._wait()
        except PlaceError as error:
            self._say_once(error)
        entries = (copy.deepcopy(position), fingerprint, copy.deepcopy(dict(record)))
        self._name = position.name
        self._written = self._thread.submit(self._writer.save, snapshot, *entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self._wait()

    def _wait(self) -> None:
        written, self._written = self._written, None
        if written is None:
            return
        written.result()
        if self._is_failing:
            self._log(f"checkpoint {self._name} is saved again")
        self._last_good, self._is_failing = self._name, False

    def _say_once(self, error: PlaceError) -> None:
        if not self._is_failing:
            last = f"the last one is {self._last_good}" if self._last_good else "there is none of this start yet"
            self._log(f"warning: checkpoint {self._name} is not saved ({error}); goes on, {last}")
        self._is_failing = True
