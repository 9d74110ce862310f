"""The command `cosyflow`: every stage of the pipeline, and the tools around it, as sub-commands."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cosyflow import __version__
from cosyflow.cli.parser import REFUSED, Parser
from cosyflow.errors import CosyFlowError, RefusalError, StoppedError

FAILED = 1
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM

STAGES = (
    "download",
    "prepare",
    "speaker-embedding",
    "speech-token",
    "parquet",
    "merge",
    "train",
    "average",
    "export",
    "register",
)
TOOLS = ("stand-ins", "inspect", "synthesize", "models")


def module_name(command: str) -> str:
    """The module that has a command's `configure(parser)` and `run(args)`."""
    return f"cosyflow.cli.{command.replace('-', '_')}"


def build_parser(only: str | None = None) -> Parser:
    """The parser of all commands, or of one: then the modules of the others are not imported."""
    description = "Stages of the CosyVoice training flow. `cosyflow STAGE --help` tells its options."
    parser = Parser(prog="cosyflow", description=description)
    parser.add_argument("--version", action="version", version=f"cosyflow {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for command in (*STAGES, *TOOLS):
        if only in (None, command):
            module = importlib.import_module(module_name(command))
            summary = (module.__doc__ or "").strip().splitlines()[0]
            module.configure(commands.add_parser(command, help=summary, description=summary))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns its exit status: 0 done, 1 failed, 2 refused before any work, 128 + N after signal N."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    known = words[0] if words and words[0] in (*STAGES, *TOOLS) else None
    args = build_parser(known).parse_args(words)
    name = f"cosyflow {args.command}"
    try:
        with ended_by_sigterm():
            importlib.import_module(module_name(args.command)).run(args)
    except RefusalError as refusal:
        _tell(*refusal.lines)
        return REFUSED
    except (StoppedError, Terminated) as stopped:
        _tell(f"{name}: {stopped}")
        return TERMINATED
    except CosyFlowError as error:
        _tell(f"{name}: error: {error}")
        return FAILED
    except KeyboardInterrupt:
        _tell(f"{name}: interrupted; the same command goes on where it stopped")
        return INTERRUPTED
    except Exception as defect:
        told = " ".join(f"{type(defect).__name__}: {defect}".split())
        _tell(f"{name}: error: {told}; this is not a mistake of yours, its traceback is in {_write_traceback(defect)}")
        return FAILED
    return 0


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


def _tell(*lines: str) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _write_traceback(defect: Exception) -> str:
    """Writes the traceback into a file, which is named to the user, and returns its name."""
    with tempfile.NamedTemporaryFile("w", prefix="cosyflow-", suffix=".log", delete=False, encoding="utf-8") as file:
        traceback.print_exception(defect, file=file)
    return file.name
