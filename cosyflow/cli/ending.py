"""How a command ends: its exit status, and what it says when something is wrong. The same for all commands."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from cosyflow.cli.parser import REFUSED
from cosyflow.errors import CosyFlowError, RefusalError, StoppedError
from cosyflow.processes import make_user_known

FAILED = 1
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
EXTRAS: Mapping[str, tuple[str, ...]] = {
    "pipelines": ("kfp", "kfp_server_api"),
    "train": (
        "onnx",
        "onnxruntime",
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
}
"""Modules that the core of the package does not bring, by the extra that does."""


def ending(name: str, work: Callable[[], int | None]) -> int:
    """Does a command's work. Returns its exit status: 0 done, 1 failed, 2 refused before any work, 128 + N by signal N.

    Args:
        name: of the command, as messages begin.
        work: may return another status.
    """
    make_user_known()
    try:
        with ended_by_sigterm():
            return work() or 0
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
        _print(f"{name}: error: {_cause(defect)}")
        return FAILED


def _cause(defect: Exception) -> str:
    """What is said of an exception that no command expects."""
    module = (defect.name or "").partition(".")[0] if isinstance(defect, ModuleNotFoundError) else ""
    for extra in (extra for extra, modules in EXTRAS.items() if module in modules):
        return f"{module} is not installed; install it with: pip install 'cosyflow[{extra}]'"
    if isinstance(defect, OSError) and defect.filename:
        named = f"{os.fsdecode(defect.filename)}: {defect.strerror}"
        return f"{named}; give the right or the room for it, or another place ({_write_traceback(defect)} has more)"
    summary = " ".join(f"{type(defect).__name__}: {defect}".split())
    return f"{summary}; this is not a mistake of yours, its traceback is in {_write_traceback(defect)}"


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
    owner = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() != owner:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _print(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _write_traceback(defect: Exception) -> str:
    """Writes the traceback into a file, which is named to the user, and returns its name."""
    with tempfile.NamedTemporaryFile("w", prefix="cosyflow-", suffix=".log", delete=False, encoding="utf-8") as file:
        traceback.print_exception(defect, file=file)
    return file.name
