"""The device that the extraction stages are to compute on."""

from __future__ import annotations

from collections.abc import Iterator

from cosyflow.errors import CosyFlowError, Problem
from cosyflow.extract.device import AUTO, CUDA, VARIABLE, asked_for, why_no_cuda
from cosyflow.run.record import Record


def missing_device(record: Record) -> Iterator[Problem]:
    """A problem when CUDA is asked for and this machine, which the stages run on, has none. A pod cannot know."""
    from cosyflow.launch.client import in_a_pod

    try:
        asked = asked_for(record.run.device)
    except CosyFlowError as error:
        yield Problem("device", str(error))
        return
    if asked != CUDA or in_a_pod():
        return
    if why_not := why_no_cuda():
        of = f" (by {VARIABLE})" if record.run.device == AUTO else ""
        yield Problem("device", f"cuda is asked for{of}, and {why_not}; correct that, or give auto or cpu")
