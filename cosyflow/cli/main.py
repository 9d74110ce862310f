"""The command `cosyflow`: every stage of the pipeline, and the tools around it, as sub-commands."""

from __future__ import annotations

import argparse
import ast
import importlib
import keyword
import sys
from collections.abc import Sequence
from pathlib import Path

from cosyflow import __version__
from cosyflow.cli.ending import ending
from cosyflow.cli.parser import Parser
from cosyflow.config.options import STAGE_NAMES as STAGES
from cosyflow.credentials import withdrawn_from

TOOLS = (
    "import",
    "convert-recipe",
    "stand-ins",
    "inspect",
    "synthesize",
    "evaluate",
    "judges",
    "page",
    "samples",
    "reject-samples",
    "models",
    "gc",
)


def module_name(command: str) -> str:
    """The module that has a command's `configure(parser)` and `run(args)`."""
    name = command.replace("-", "_")
    return f"cosyflow.cli.{name}_" if keyword.iskeyword(name) else f"cosyflow.cli.{name}"


def summary_of(command: str) -> str:
    """The first line of its module's docstring, read without importing the module: `cosyflow --help` imports none."""
    source = Path(__file__).with_name(module_name(command).rpartition(".")[2] + ".py")
    documented = ast.get_docstring(ast.parse(source.read_bytes()))
    return (documented or "").partition("\n")[0]


def build_parser(configured: str | None = None) -> Parser:
    """The parser of all commands by name, with the options of the `configured` one, whose module alone is imported."""
    description = "Stages of the CosyVoice training flow. `cosyflow STAGE --help` shows its options."
    parser = Parser(prog="cosyflow", description=description)
    parser.add_argument("--version", action="version", version=f"cosyflow {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for command in (*STAGES, *TOOLS):
        summary = summary_of(command) if configured in (None, command) else ""
        options = commands.add_parser(command, help=summary, description=summary)
        if command == configured:
            importlib.import_module(module_name(command)).configure(options)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns its exit status: 0 done, 1 failed, 2 refused before any work, 128 + N after signal N."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    known = next((word for word in words if word in (*STAGES, *TOOLS)), None)
    return ending(f"cosyflow {known}" if known else "cosyflow", lambda: _run(known, words))


def _run(known: str | None, words: list[str]) -> int | None:
    args = build_parser(known).parse_args(words)
    clean = argparse.Namespace(**withdrawn_from(vars(args)))
    status: int | None = importlib.import_module(module_name(args.command)).run(clean)
    return status
