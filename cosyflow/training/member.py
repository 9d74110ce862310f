"""What makes a process a good member of a job: it ends with its parent, and it leaves word of why it failed."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from cosyflow.errors import CosyFlowError, RefusalError
from cosyflow.unexpected import describe, write_traceback

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
_PR_SET_PDEATHSIG = 1  # prctl(2)
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Refusal(Exception):  # noqa: N818 - it stands in torch's error file under this name
    """The problems of a RefusalError as JSON, on their way through torch's error file."""


def end_with_parent(number: signal.Signals) -> None:
    """Has the kernel send this process a signal when the thread that started it ends. Linux only; elsewhere nothing."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, number)


def end_job(reason: str) -> None:
    """Ends this process, and so the job, from any of its threads. The launcher gets the reason."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(CosyFlowError(reason))
    print(f"error: {reason}", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(1)


@contextmanager
def member_of_a_job() -> Iterator[None]:
    """Runs its body as one of the processes that torchrun started.

    When torchrun is killed, so is this process: torchrun gives its processes sessions of their own, where no other
    signal reaches them. An exception goes into torch's error file, from where the launcher takes the error of the
    process that failed first. What ends the process is one line; the traceback of a defect is in the log of the job,
    or in a file that the line names.
    """
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    end_with_parent(signal.SIGKILL)
    errors = get_error_handler()
    errors.initialize()
    try:
        yield
    except RefusalError as refusal:
        errors.record_exception(Refusal(json.dumps([asdict(problem) for problem in refusal.problems])))
        sys.exit("\n".join(refusal.lines))
    except CosyFlowError as error:
        errors.record_exception(CosyFlowError(str(error)))  # the launcher knows it by this name, not by a subclass's
        sys.exit(f"error: {error}")
    except Exception as error:
        errors.record_exception(error)
        if ERROR_FILE in os.environ:  # torchrun started it: all that it prints goes into the log
            traceback.print_exc()
            sys.exit(f"error: rank {os.environ.get('RANK', '0')}: {describe(error)}")
        sys.exit(f"error: {describe(error)}; its traceback is in {write_traceback(error)}")
