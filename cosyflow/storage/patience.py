"""How often and how long a store is asked again."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import TypeVar

from cosyflow.errors import MissingObjectError, OutageError, StoreError
from cosyflow.storage import faults
from cosyflow.storage.client import CREDENTIAL_VARIABLES, seconds_from
from cosyflow.storage.faults import Course, Fault

T = TypeVar("T")

ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 4.0
OUTAGE_SECONDS = 120.0
"""How long a store that does not answer is waited for: longer than it takes to start again on another node."""
PATIENCE_VARIABLE = "COSYFLOW_S3_PATIENCE"

_outage_seconds: ContextVar[float | None] = ContextVar("outage_seconds", default=None)


@contextmanager
def impatient() -> Iterator[None]:
    """Within the `with` body a store that does not answer is an error after a few attempts, in seconds."""
    token = _outage_seconds.set(0.0)
    try:
        yield
    finally:
        _outage_seconds.reset(token)


def outage_seconds() -> float:
    """How long a store that does not answer is waited for here and now; raises CosyFlowError for a wrong setting."""
    patience = _outage_seconds.get()
    return seconds_from(PATIENCE_VARIABLE, OUTAGE_SECONDS) if patience is None else patience


def retried(path: str, action: Callable[[], T]) -> T:
    """The action's result, tried ATTEMPTS times, and during an outage for OUTAGE_SECONDS.

    Args:
        path: `bucket/key`, for messages.
    Raises:
        StoreError: the store refuses, or what it gives is wrong every time; its subclasses MissingObjectError, and
            OutageError for a store that does not answer.
    """
    deadline = time.monotonic() + outage_seconds()
    known = faults.exceptions()
    for attempt in count(1):
        try:
            return action()
        except known as error:
            fault = faults.fault_of(error)
            message = without_credentials(str(fault))
            tried = attempt >= ATTEMPTS and not (fault.course is Course.OUTAGE and time.monotonic() < deadline)
            if tried or fault.course in (Course.LASTING, Course.MISSING):
                raise error_for(path, fault) from None
        if attempt == ATTEMPTS:
            logging.getLogger(__name__).warning("s3://%s: %s; waits for the store", path, message)
        time.sleep(min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.5))
    raise AssertionError("the loop ends by a result or an error")


def error_for(path: str, fault: Fault) -> StoreError:
    """What is raised for a fault that stays."""
    message = without_credentials(str(fault))
    if fault.course is Course.MISSING:
        return MissingObjectError(f"s3://{path} does not exist: {message}", fault.code)
    return (OutageError if fault.course is Course.OUTAGE else StoreError)(f"s3://{path}: {message}", fault.code)


def without_credentials(message: str) -> str:
    for name in CREDENTIAL_VARIABLES:
        if secret := os.environ.get(name):
            message = message.replace(secret, f"<{name}>")
    return message
