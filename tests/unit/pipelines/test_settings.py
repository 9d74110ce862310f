"""What `cosyflow.run.config.Run` says of a setting is said everywhere: in the graph, the commands, and the docs."""

from __future__ import annotations

import argparse
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import components
from cosyflow.run.config import FIELDS, PARAMETERS, default_of, kind_of
from pipelines.commands import build_parser
from pipelines.cosyvoice import build_pipeline
from pipelines.options import meaning

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "parameters.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(?P<name>\w+)` \| .* \|$", re.MULTILINE)
COMPILED_IN = ["subsets_at_once", "resources"]

TYPES = {str: "STRING", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE", bool: "BOOLEAN", list: "LIST"}
WORDS = {str: "text", int: "number", float: "number", bool: "yes or no", list: "list", dict: "mapping"}
COMMANDS = ("run", "submit", "show", "check", "keys")


def plain_default(name: str) -> Any:
    default = default_of(name)
    return list(default) if kind_of(name) is list else default


@pytest.fixture(scope="module")
def root() -> dict[str, Any]:
    """The parameters of the compiled pipeline."""
    from google.protobuf import json_format

    spec = json_format.MessageToDict(build_pipeline(2, {}).pipeline_spec)
    parameters: dict[str, Any] = spec["root"]["inputDefinitions"]["parameters"]
    return parameters


@pytest.mark.medium
def test_the_settings_are_all_there_and_in_one_order(root: dict[str, Any]) -> None:
    assert [*PARAMETERS, *COMPILED_IN] == sorted(FIELDS, key=[*PARAMETERS, *COMPILED_IN].index)
    assert set(root) == {"run", *PARAMETERS}
    assert list(inspect.signature(components.plan.python_func).parameters) == ["run", *PARAMETERS]
    assert [row["name"] for row in ROW.finditer(PAGE)] == ["run", *PARAMETERS, *COMPILED_IN]


@pytest.mark.medium
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_setting_is_the_same_everywhere(name: str, root: dict[str, Any]) -> None:
    kind = kind_of(name)
    assert root[name] == {
        "parameterType": TYPES[kind],
        "defaultValue": plain_default(name),
        "description": meaning(name),
        "isOptional": True,
    }
    annotation = inspect.signature(components.plan.python_func).parameters[name].annotation
    assert annotation == (list[str] if kind is list else kind)
    assert row_of(name) in PAGE, f"docs/parameters.md should have this row: {row_of(name)}"
    for command in COMMANDS:
        option = options_of(command)[name]
        assert {f"--{name.replace('_', '-')}", f"--{name}"} <= set(option.option_strings)
        assert option.default is argparse.SUPPRESS  # what is not given is taken from the file, or is Run's default
        assert (option.type or (bool if option.nargs == 0 else list)) is kind
        assert option.help is not None
        assert option.help.replace("%%", "%").startswith(f"{meaning(name)} (default: ")


@pytest.mark.parametrize("name", COMPILED_IN)
def test_what_is_compiled_in_is_no_parameter_and_no_option(name: str, root: dict[str, Any]) -> None:
    assert name not in root
    assert all(name not in options_of(command) for command in COMMANDS)
    assert row_of(name) in PAGE


def test_the_whole_run_is_a_parameter_of_its_own(root: dict[str, Any]) -> None:
    assert root["run"]["parameterType"] == "STRING"
    assert root["run"]["defaultValue"] == ""
    assert f"| `run` | text |  | {root['run']['description']} |" in PAGE


def row_of(name: str) -> str:
    """A setting's row of the page; copy it there when a setting has changed."""
    default = plain_default(name)
    if name == "data_root":
        shown = "**required**"
    elif isinstance(default, bool):
        shown = str(default).lower()
    else:
        shown = "" if default in ("", [], {}) else f"`{default}`"
    return f"| `{name}` | {WORDS[kind_of(name)]} | {shown} | {meaning(name)} |"


def options_of(command: str) -> dict[str, argparse.Action]:
    """The options of a command that are settings of the run, by name."""
    (commands,) = [action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return {action.dest: action for action in commands.choices[command]._actions if action.dest in FIELDS}
