"""README names every command, with every option and its default, and no other; and it leads to every page of docs."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from cosyflow.cli.main import STAGES, TOOLS, build_parser
from pipelines.commands import build_parser as build_pipelines_parser
from tests.documents import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = README.partition("\n## Every stage is a command\n")[2].partition("\n## ")[0]
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


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return next(action.choices for action in parser._actions if isinstance(action.choices, dict))


def test_the_table_has_the_commands_that_the_help_shows() -> None:
    assert sorted(row["command"] for row in ROW.finditer(COMMANDS)) == sorted(commands_of(build_parser()))


@pytest.mark.parametrize("command", commands_of(build_pipelines_parser()))
def test_every_command_of_the_pipeline_is_named(command: str) -> None:
    assert f"python -m pipelines {command}" in README


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_page_is_linked(page: Path) -> None:
    assert f"](docs/{page.name}" in README


@pytest.mark.parametrize("command", [*STAGES, *TOOLS])
def test_every_option_is_in_the_readme(command: str) -> None:
    rows = {row["command"]: row["options"] for row in ROW.finditer(COMMANDS)}
    parser = commands_of(build_parser(command))[command]
    options = [describe(action) for action in parser._actions if action.dest != "help"]
    assert rows[command] == ", ".join(options)
