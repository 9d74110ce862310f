"""Why an attempt at a training failed, left in the model's folder: what would fail again is not started again.

The process that failed knows best. Input that is wrong stays wrong; a store that does not answer, a killed process or
a lost node say nothing about the next attempt. A loss that is not finite is certain when it comes a second time at the
same update.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from cosyflow import storage
from cosyflow.errors import CosyFlowError, MachineError, NotFiniteError, OutageError, StoppedError
from cosyflow.lease import OvertakenError
from cosyflow.progress import say
from cosyflow.redaction import redact
from cosyflow.unexpected import UnexpectedError

FAILURE_FILE = "failure.json"
WORK_VARIABLE = "COSYFLOW_WORK"
"""A digest of what is trained with what, for a training process; without it nothing is left."""
ATTEMPT_VARIABLE = "COSYFLOW_ATTEMPT"
"""Which attempt at that work the process is of."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How an attempt failed.

    Attributes:
        work: digest of what was tried; the failure says nothing about other work.
        attempt: name of the attempt.
        cause: the error in one line.
        is_certain: the same work would fail again.
        update: number of the last update whose loss or gradient was not finite, in this attempt or an earlier one.
    """

    work: str
    attempt: str
    cause: str
    is_certain: bool
    update: int | None = None


def failure_uri(model_dir: str) -> str:
    return storage.join(model_dir, FAILURE_FILE)


def read_failure(model_dir: str, work: str) -> Failure | None:
    """How the last attempt at this work failed that could say so; None when there is none.

    Raises:
        CosyFlowError: the file cannot be read.
    """
    uri = failure_uri(model_dir)
    if not storage.exists(uri):
        return None
    try:
        failure = Failure(**storage.read_json(uri))
    except TypeError as error:
        raise CosyFlowError(f"{uri}: not what a failed training leaves ({error}); remove the file") from None
    return failure if failure.work == work else None


@contextmanager
def leaving_failure(model_dir: str) -> Iterator[None]:
    """Leaves the error that ends the `with` body for the next attempt, and raises it again."""
    try:
        yield
    except (CosyFlowError, FileNotFoundError) as error:
        if work := os.environ.get(WORK_VARIABLE):
            leave_failure(model_dir, work, os.environ.get(ATTEMPT_VARIABLE, ""), error)
        raise


def leave_failure(model_dir: str, work: str, attempt: str, error: CosyFlowError | FileNotFoundError) -> None:
    """Leaves an error of an attempt for the next one; a store that cannot be written now costs no more than a line."""
    try:
        with storage.impatient():
            before = read_failure(model_dir, work)
            if before is not None and before.is_certain:
                return
            earlier = before.update if before is not None else None
            failure = Failure(
                work=work,
                attempt=attempt,
                cause=redact(str(error)),
                is_certain=_is_certain(error, attempt, before),
                update=error.update if isinstance(error, NotFiniteError) else earlier,
            )
            storage.write_json(failure_uri(model_dir), asdict(failure))
    except CosyFlowError as trouble:
        say("train", f"cannot leave the cause for the next attempt: {trouble}")


def _is_certain(error: Exception, attempt: str, before: Failure | None) -> bool:
    if isinstance(error, NotFiniteError):  # other ranks of the same attempt leave it too
        return before is not None and before.attempt != attempt and before.update == error.update
    return not isinstance(error, OutageError | StoppedError | MachineError | OvertakenError | UnexpectedError)
