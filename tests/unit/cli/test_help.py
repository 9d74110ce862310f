"""Help is there at once: a person who asks for it waits for no large package."""

import os
import subprocess
import sys

import pytest

from cosyflow.cli.main import STAGES, TOOLS, build_parser, module_name

LARGE = {"torch", "numpy", "yaml", "requests", "tqdm", "kfp", "mlflow", "pyarrow", "transformers"}
READY_S = 0.5
"""Of the processor, for the whole process."""


def test_the_help_of_all_commands_imports_none_of_them() -> None:
    source = "import sys; from cosyflow.cli.main import build_parser; build_parser().format_help(); print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    loaded = set(ended.stdout.split())
    assert not loaded & LARGE
    assert not loaded & {module_name(command) for command in (*STAGES, *TOOLS)}


@pytest.mark.parametrize("program", ["cosyflow", "pipelines"])
def test_help_takes_half_a_second(program: str) -> None:
    before = os.times()
    ended = subprocess.run([sys.executable, "-m", program, "--help"], capture_output=True, text=True, check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert ended.stdout.startswith("usage: ")
    assert used < READY_S


@pytest.mark.parametrize("command", [*STAGES, *TOOLS])
def test_the_list_of_commands_says_of_each_what_its_own_help_begins_with(command: str) -> None:
    listed = {row.dest: row.help for row in build_parser()._subparsers._group_actions[0]._choices_actions}  # type: ignore[union-attr]
    own = build_parser(command)._subparsers._group_actions[0].choices[command]  # type: ignore[union-attr, index]
    assert listed[command] == own.description
    assert len(listed[command]) > 10
