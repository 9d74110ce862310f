"""The README names every option of every command, with its default, and no other."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from cosyflow.cli.main import STAGES, TOOLS, build_parser

README = (Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(?P<command>[a-z-]+)` \| (?P<options>.*) \|$", re.MULTILINE)


def describe(action: argparse.Action) -> str:
    """An option as the README writes it: bold when required, a default other than "none" in brackets."""
    if not action.option_strings:
        return f"`{str(action.metavar or action.dest).upper()}`"
    name = f"`{action.option_strings[0]}`"
    if action.required:
        return f"**{name}**"
    if isinstance(action, argparse.BooleanOptionalAction):
        return f"{name} (on; `{action.option_strings[1]}`)" if action.default else name
    if action.nargs == 0 or action.default in (None, "", []):
        return name
    default = " ".join(action.default) if isinstance(action.default, list) else action.default
    return f"{name} ({default})"


@pytest.mark.parametrize("command", [*STAGES, *TOOLS])
def test_every_option_is_in_the_readme(command: str) -> None:
    rows = {row["command"]: row["options"] for row in ROW.finditer(README)}
    commands = next(action for action in build_parser(command)._actions if isinstance(action.choices, dict))
    options = [describe(action) for action in commands.choices[command]._actions if action.dest != "help"]
    assert rows[command] == ", ".join(options)
