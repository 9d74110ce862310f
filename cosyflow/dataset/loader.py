"""Feeds one rank its batches of an epoch, in the order of the plan whatever the number of workers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cosyflow import storage
from cosyflow.dataset.plan import Share
from cosyflow.dataset.utterances import UtteranceIndex
from cosyflow.errors import CosyFlowError, MachineError, OutageError
from cosyflow.unexpected import UnexpectedError, describe, write_traceback

Item = TypeVar("Item")
Batch = TypeVar("Batch")
DEFAULT_PREFETCH = 2
NAMED_IN_ERRORS = 3
WORKER_ENDED = "DataLoader worker"
"""How PyTorch's message about a worker process that was killed begins."""
_END: Any = object()
_KINDS = (OutageError, MachineError, UnexpectedError, CosyFlowError)
"""What a failure says of another attempt is kept; the first kind that fits counts."""


class Reader(Protocol[Item]):
    """Reads rows of an index; what an item holds is the reader's choice."""

    index: UtteranceIndex

    def read(self, rows: np.ndarray) -> list[Item]: ...


@dataclass(frozen=True)
class _Failure:
    """An error in a worker process; it travels as a value because a DataLoader adds a traceback to exceptions."""

    kind: type[CosyFlowError]
    message: str

    @classmethod
    def of(cls, error: CosyFlowError) -> _Failure:
        return cls(next(kind for kind in _KINDS if isinstance(error, kind)), str(error))


class _Batches(Dataset[Any]):
    """Asked for the rows of a batch, reads and collates them (in a worker process when there are any)."""

    def __init__(self, reader: Reader[Any], collate: Callable[[list[Any]], Any]) -> None:
        self.reader = reader
        self.collate = collate

    def __getitem__(self, rows: np.ndarray) -> Any:
        try:
            return self.collate(self.reader.read(rows))
        except CosyFlowError as error:
            return _Failure.of(error)
        except Exception as error:
            names = ", ".join(self.reader.index.utts[row] for row in rows[:NAMED_IN_ERRORS])
            more = f" and {len(rows) - NAMED_IN_ERRORS} more" if len(rows) > NAMED_IN_ERRORS else ""
            text = f"a batch of {names}{more}: {describe(error)}; its traceback is in {write_traceback(error)}"
            return _Failure(UnexpectedError, text)


class BatchLoader(Generic[Batch]):
    """The batches of one rank in one epoch. Every iteration starts anew."""

    def __init__(self, batches: DataLoader[Any]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self._batches)
        while True:
            try:
                batch = next(batches, _END)  # an empty batch may be None
            except RuntimeError as error:
                if not str(error).startswith(WORKER_ENDED):
                    raise
                raise UnexpectedError(
                    f"{describe(error)}; did the machine have too little memory? take fewer --num_workers"
                ) from error
            if batch is _END:
                return
            if isinstance(batch, _Failure):
                raise batch.kind(batch.message)
            yield batch


def build_loader(
    share: Share,
    reader: Reader[Item],
    collate: Callable[[list[Item]], Batch],
    num_workers: int = 0,
    prefetch: int | None = None,
    pin_memory: bool = False,
) -> BatchLoader[Batch]:
    """Iterates over `collate(reader.read(rows))` for the rows of each batch of a share.

    Args:
        share: one rank's batches.
        reader: reads rows; with workers each of them has a copy.
        collate: makes a batch from what the reader gave (an empty list for an empty batch). It must
            be picklable (no lambda) where shards are remote and there are workers.
        num_workers: processes that read ahead; 0 reads in this one.
        prefetch: batches each worker reads ahead, DEFAULT_PREFETCH when None; nothing is read ahead without workers.
        pin_memory: whether batches lie in page-locked memory; ignored on machines without CUDA.
    Raises:
        CosyFlowError: while iterating, what the reader or `collate` raised.
    """
    batches = DataLoader(
        _Batches(reader, collate),
        batch_size=None,
        sampler=share,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        prefetch_factor=(prefetch or DEFAULT_PREFETCH) if num_workers else None,
        pin_memory=pin_memory and torch.cuda.is_available(),
        multiprocessing_context=_start_method(reader.index) if num_workers else None,
    )
    return BatchLoader(batches)


def _start_method(index: UtteranceIndex) -> str:
    """How workers start. The client of an object store does not survive a fork, so a server without one makes them."""
    if not any(map(storage.is_remote, index.shards)):
        return "fork"
    multiprocessing.set_forkserver_preload([__name__])
    return "forkserver"


def _as_it_is(batch: Any) -> Any:
    """Keeps the DataLoader from converting what a batch holds."""
    return batch
