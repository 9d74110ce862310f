"""The settings of a run as command-line options, and the run that a command line asks for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from cosyflow.cli.parser import Parser
from cosyflow.run import config
from cosyflow.run.config import FIELDS, PARAMETERS, default_of, kind_of


def add_settings(parser: Parser) -> None:
    """Adds `--run`, `--set`, and an option for every setting. What is not given stays out of the namespace."""
    parser.add_argument("--run", default="", help="file (or s3://) with a whole run, as `show` prints it")
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="changes a setting of the run, or of its recipe (train_conf.max_epoch=3); may be repeated",
    )
    group = parser.add_argument_group("settings of the run", "also in docs/parameters.md")
    for name in PARAMETERS:
        default = default_of(name)
        settings: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
        settings["help"] = f"{meaning(name)} ({_shown(default)})".replace("%", "%%")
        spellings = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
        if kind_of(name) is bool:
            settings["action"] = argparse.BooleanOptionalAction
        elif kind_of(name) is list:
            settings |= {"nargs": "*", "metavar": name.upper().removesuffix("S")}
        else:
            settings["type"] = kind_of(name)
        group.add_argument(*spellings, **settings)


def read_settings(args: argparse.Namespace, defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The settings of a run from a command line: `--run`, then the options, then `--set`.

    Args:
        defaults: values that take the place of missing ones.

    Raises:
        RefusalError: a file cannot be read, or a setting is not KEY=VALUE.
    """
    values = {**(defaults or {}), **config.read_run(args.run)}
    values |= {name: getattr(args, name) for name in PARAMETERS if hasattr(args, name)}
    return config.changed(values, args.changes)


def meaning(name: str) -> str:
    """What a setting means, with the values that it may have."""
    entry = FIELDS[name]
    choices = entry.metadata["settings"].get("choices")
    text: str = entry.metadata["meaning"]
    return f"{text} One of {', '.join(choices)}." if choices and name != "launcher" else text  # which names them itself


def _shown(default: Any) -> str:
    if default in ("", (), []):
        return "default: empty"
    return f"default: {str(default).lower() if isinstance(default, bool) else default}"
