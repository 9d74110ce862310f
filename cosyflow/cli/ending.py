"""How a command ends: its exit status, and what it says when something is wrong. The same for all commands."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from cosyflow import disk
from cosyflow.beginning import INTERRUPTED, end_at_once
from cosyflow.cli.parser import REFUSED, is_unread
from cosyflow.credentials import protect
from cosyflow.errors import CosyFlowError, RefusalError, StoppedError
from cosyflow.interruption import Raising
from cosyflow.processes import make_user_known
from cosyflow.unexpected import describe, write_traceback

FAILED = 1
TERMINATED, UNREAD = 128 + signal.SIGTERM, 128 + signal.SIGPIPE
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "pipelines": ("cronsim", "kfp", "kfp_server_api"),
    "train": (
        "onnx",
        "onnxruntime",
        "PIL",
        "pyworld",
        "safetensors",
        "tensorboard",
        "tokenizers",
        "torch",
        "torchaudio",
        "transformers",
    ),
    "tracking": ("mlflow",),
    "deepspeed": ("deepspeed",),
    "demo": ("espeakng_loader",),
    "evaluation": ("rapidfuzz",),
}
"""Modules that the core of the package does not bring, by the extra that does."""


def ending(name: str, work: Callable[[], int | None]) -> int:
    """Does a command's work. Returns its exit status: 0 done, 1 failed, 2 refused before any work, 128 + N by signal N.

    Args:
        name: of the command, as messages begin.
        work: may return another status.
    """
    try:
        make_user_known()
    except FileNotFoundError:
        _print("error: TMPDIR: no place for temporary files can be written; set it to one that can")
        return REFUSED
    try:
        protect()
        with _interrupts_raised(), ended_by_sigterm():
            status = work() or 0
            if sys.stdout is not None:
                sys.stdout.flush()
            return status
    except RefusalError as refusal:
        _print(*refusal.lines)
        return REFUSED
    except (StoppedError, Terminated) as stopped:
        _print(f"{name}: {stopped}")
        return TERMINATED
    except CosyFlowError as error:
        _print(f"{name}: error: {error}")
        return FAILED
    except KeyboardInterrupt:
        _print(f"{name}: interrupted; the same command goes on where it stopped")
        return INTERRUPTED
    except Exception as defect:
        if isinstance(defect, BrokenPipeError) and is_unread():
            return UNREAD
        _print(f"{name}: error: {_cause(defect)}")
        return FAILED


def _cause(defect: Exception) -> str:
    """What is said of an exception that no command expects."""
    module = (defect.name or "").partition(".")[0] if isinstance(defect, ModuleNotFoundError) else ""
    for extra in (extra for extra, modules in EXTRAS.items() if module in modules):
        return f"{module} is not installed; install it with: pip install 'cosyflow[{extra}]'"
    if isinstance(defect, OSError) and (defect.filename or defect.errno in disk.REMEDIES):
        return f"{describe(defect)}; {disk.remedy(defect)} ({write_traceback(defect)} has more)"
    if isinstance(defect, MemoryError):
        return f"this machine has not enough memory ({describe(defect)}); {write_traceback(defect)} has more"
    return f"{describe(defect)}; this is not a mistake of yours, its traceback is in {write_traceback(defect)}"


class Terminated(BaseException):
    """SIGTERM came. No Exception, so that nothing on the way takes it for a failure."""

    def __str__(self) -> str:
        return "ended by SIGTERM; the same command goes on where it stopped"


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM end the `with` body as Ctrl-C does, with all that has to be tidied up.

    A process that is forked meanwhile dies of it at once, as if there were no handler.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may listen
        yield
        return
    owner, terminate = os.getpid(), Raising(Terminated)

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        terminate(number, frame)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _interrupts_raised() -> Iterator[None]:
    """Has Ctrl-C raise KeyboardInterrupt in the `with` body, as Python does by itself, but for `Raising`."""
    ours = signal.getsignal(signal.SIGINT) is end_at_once
    if ours:
        signal.signal(signal.SIGINT, Raising(KeyboardInterrupt))
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, end_at_once)


def _print(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)
