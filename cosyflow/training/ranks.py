"""The processes of a training job: who this one is, on which device, and how they agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from cosyflow.errors import CosyFlowError, MachineError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """This process among the `world_size` processes of a job."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no process group, and nothing to agree about."""
        return self.world_size == 1 and not (dist.is_available() and dist.is_initialized())

    def sum_(self, values: torch.Tensor) -> torch.Tensor:
        """Replaces `values`, a tensor on `device`, by their sum over the ranks, without waiting for a GPU."""
        if not self.is_alone:
            dist.all_reduce(values)
        return values

    def gather(self, value: Value) -> list[Value]:
        """The picklable values of all ranks, in their order, on every rank. Waits for all ranks."""
        if self.is_alone:
            return [value]
        values: list[Value | None] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # every entry is filled

    def share(self, make: Callable[[], Value]) -> Value:
        """The picklable value that the first rank makes, on every rank."""
        if self.is_alone:
            return make()
        values: list[Value | None] = [make() if self.is_first else None]
        dist.broadcast_object_list(values, device=self.device)
        return values[0]  # type: ignore[return-value]  # the first rank filled it

    def barrier(self) -> None:
        if not self.is_alone:
            dist.barrier()


@contextmanager
def process_group(backend: str, timeout_seconds: float, even_alone: bool = False) -> Iterator[Ranks]:
    """Joins the processes that torchrun started (one process when it did not).

    One process on CUDA makes a group of its own, so that what a cluster's GPUs need is tried where there is one; one on
    the CPU makes none unless it is asked for.

    Args:
        backend: `nccl` or `gloo`; empty takes NCCL on CUDA and gloo elsewhere.
        timeout_seconds: how long a rank waits for the others before the job fails.
        even_alone: whether one process on the CPU makes a group too.
    """
    rank, world_size, local_rank = (int(os.environ.get(name, default)) for name, default in
                                    (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")))  # fmt: skip
    device = _device(local_rank)
    if backend == "nccl" and device.type != "cuda":
        raise CosyFlowError("--ddp.dist_backend nccl: there is no CUDA device here; use gloo or leave the option out")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    ranks, timeout = Ranks(rank, world_size, device), timedelta(seconds=timeout_seconds)
    backend = backend or ("nccl" if device.type == "cuda" else "gloo")
    if world_size > 1:
        dist.init_process_group(backend, timeout=timeout)
    elif backend == "nccl" or even_alone:
        store = dist.HashStore()  # type: ignore[attr-defined]  # within this process: no address is needed
        bound = device if backend == "nccl" else None
        dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=timeout, device_id=bound)
    else:
        yield ranks
        return
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise MachineError(
            f"process {local_rank + 1} on this machine finds {torch.cuda.device_count()} CUDA devices;"
            " start at most one process for each (--gpus_per_node)"
        )
    return torch.device("cuda", local_rank)
