"""Command-line options that accept the official spelling (`--num_utts_per_parquet`) and hyphens alike."""

from __future__ import annotations

import argparse
import os
import re
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from cosyflow.errors import Problem
from cosyflow.places import tidy

REFUSED = 2
"""Exit status when a command is refused before any work."""
_REQUIRED = "the following arguments are required: "
_UNKNOWN = "unrecognized arguments: "
_PLACES = re.compile(
    r"(.*_)?(dir|path|data|root|src|dst|url|config)|file|list|judges|champion|evaluation|directory|checkpoint|ref_model|resume_from"
    r"|job|run|recipe|images|paths|state|(src|dst|llm|flow|hifigan)_model|data_list|prompt_wav|output|corpus"
)
"""Options that name a path or an address, by what they are called in the program."""
_OF_AN_ARGUMENT = re.compile(r"argument ([^/:\s]+)[^:\s]*: (.*)", re.DOTALL)


def is_unread() -> bool:
    """Whether the reader of standard output has gone, as `| head` does; what is still to be written is then dropped."""
    if sys.stdout is None:  # there is no standard output
        return False
    try:
        output = sys.stdout.fileno()
        asked = select.poll()
        asked.register(output, 0)
        gone = bool(asked.poll(0))
        sys.stdout.flush()
    except BrokenPipeError:
        gone = True
    except (OSError, ValueError):  # it is none of the system's
        return False
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return gone


def _tidied(value: Any) -> Any:
    if isinstance(value, list):
        return [_tidied(each) for each in value]
    if isinstance(value, Path):
        return Path(tidy(str(value)))
    return tidy(value) if isinstance(value, str) else value


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose options can be written with underscores or hyphens, and whose help shows defaults.

    What is wrong with a command line is printed as every refusal is: a line for each problem.
    """

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.ArgumentDefaultsHelpFormatter)
        settings.setdefault("allow_abbrev", False)
        super().__init__(**settings)

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """As argparse's, but an option gets its other spelling too."""
        spelled = list(names)
        for name in names:
            if name.startswith("--"):
                other = "--" + name[2:].replace("_", "-")
                if other not in spelled:
                    spelled.append(other)
        if spelled[0].startswith("--"):
            settings.setdefault("dest", spelled[0][2:].replace("-", "_").replace(".", "_"))
        return super().add_argument(*spelled, **settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, with paths as they are meant."""
        read, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            if _PLACES.fullmatch(action.dest) and hasattr(
                read, action.dest
            ):  # which an option without default may not be
                try:
                    setattr(read, action.dest, _tidied(getattr(read, action.dest)))
                except ValueError as error:
                    name = action.option_strings[0] if action.option_strings else str(action.metavar or action.dest)
                    self.error(f"argument {name}: {error}")
        return read, rest

    def error(self, message: str) -> NoReturn:
        """Ends the program with a line for each problem on standard error."""
        for problem in self._problems(message):
            sys.stderr.write(f"error: {problem}\n")
        sys.exit(REFUSED)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """As argparse's, also when the help's reader has gone, as `| head` does."""
        is_unread()
        super().exit(status, message)

    def _problems(self, message: str) -> Iterator[Problem]:
        """What argparse says in one sentence."""
        if message.startswith(_REQUIRED):
            for name in message.removeprefix(_REQUIRED).split(", "):
                yield Problem(name.partition("/")[0], f"is missing; give it (see {self.prog} --help)")
        elif message.startswith(_UNKNOWN):
            words = message.removeprefix(_UNKNOWN).split()
            named = [word.partition("=")[0] for word in words if word.startswith("-")]
            for name in named or words:
                yield Problem(name, f"is unknown; {self.prog} --help shows what there is")
        elif match := _OF_AN_ARGUMENT.fullmatch(message):
            name, text = match.groups()
            yield Problem(name, f"{text}; see {self.prog} --help")
        else:
            yield Problem(self.prog, f"{message}; see {self.prog} --help")
