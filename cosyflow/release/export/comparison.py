"""Compares an exported file with the model that it comes from."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cosyflow.errors import CosyFlowError

COMPARISONS = 10
TOLERANCES = {torch.float32: 1e-4, torch.float16: 3e-2}
"""The largest difference allowed, in units of the largest output and at least of one, by the type of the weights."""

Tensors = tuple[Tensor, ...]
Run = Callable[[Tensors], Tensors]
"""Computes the outputs that are compared from the inputs of one length."""


@dataclass(frozen=True)
class ExportedFile:
    """A file that is yet to be written."""

    name: str
    write: Callable[[Path], Run]
    """Writes the file, loads it again, and gives what runs it."""
    model: Run
    """The same computation by the model itself, in float32."""
    inputs: Callable[[int], Tensors]
    """Random inputs of a length, the same at each call."""
    lengths: range
    """Lengths that are compared: the first, and others drawn at random."""
    dtype: torch.dtype = torch.float32
    """Type of the weights in the file."""


@torch.inference_mode()
def largest_difference(file: ExportedFile, exported: Run) -> float:
    """The largest difference at random lengths, in units of the largest output where that is above one.

    Raises:
        CosyFlowError: it is above TOLERANCES, or shapes or masks are not the same.
    """
    tolerance = TOLERANCES[file.dtype]
    others = random.Random(file.name).sample(file.lengths[1:], COMPARISONS - 1)
    largest = 0.0
    for length in (file.lengths[0], *others):
        inputs = file.inputs(length)
        for found, expected in zip(exported(inputs), file.model(inputs), strict=True):
            difference = _difference(found, expected)
            if not difference <= tolerance:
                raise CosyFlowError(
                    f"{file.name}: differs from the model by {difference:.2e} at length {length}, allowed is"
                    f" {tolerance:.0e}"
                )
            largest = max(largest, difference)
    return largest


def _difference(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    if expected.dtype == torch.bool:
        return 0.0 if torch.equal(found, expected) else float("inf")
    scale = max(1.0, float(expected.abs().max()))
    return float((found.float() - expected.float()).abs().max()) / scale


def random_tensor(length: int, *shape: int) -> Tensor:
    """Standard normal numbers of a shape, drawn from `length` as the seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(length))
