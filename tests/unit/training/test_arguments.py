"""The options of a training: one list for a whole run, the launching command and its processes."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.cli.parser import Parser
from cosyflow.config.options import LaunchOptions, TrainingOptions, add_options, command_line, option_values
from cosyflow.training.arguments import Arguments, add_arguments

REQUIRED = {"config": "c.yaml", "train_data": "t.list", "cv_data": "v.list", "model_dir": "m"}


def values_of(entry: Any) -> st.SearchStrategy[Any]:
    """What an option can be given. (argparse of Python 3.11 cannot be given "--", however it is written.)"""
    if choices := entry.metadata["settings"].get("choices"):
        return st.sampled_from(choices)
    # paths in quotation marks, with a tilde or of Windows are tidied, see tests/unit/cli/test_places.py
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0~'\"\\:"), max_size=12).filter(
        lambda word: word != "--" and not set(word) & set("\u201c\u2018")
    ) | st.sampled_from(["-x", "--model", "a b", "-1", "=", ""])
    kinds = {
        "bool": st.booleans(),
        "int": st.integers(-5, 10**6),
        "int | None": st.none() | st.integers(-5, 10**6),
        "tuple[str, ...]": st.lists(text, max_size=3).map(tuple),
        "str": text,
    }
    return kinds[entry.type]


def any_of(kind: type) -> st.SearchStrategy[Any]:
    return st.builds(kind, **{entry.name: values_of(entry) for entry in fields(kind)})


@pytest.mark.medium
@settings(max_examples=200, deadline=None)
@given(any_of(Arguments), any_of(LaunchOptions))
def test_options_survive_the_way_through_a_command_line(arguments: Arguments, where: LaunchOptions) -> None:
    process = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(process)
    assert Arguments.of(process.parse_args(arguments.command_line())) == arguments

    command = Parser()
    add_arguments(command)
    add_options(command, LaunchOptions)
    read = command.parse_args([*arguments.command_line(), *command_line(where)])
    assert Arguments.of(read) == arguments
    assert LaunchOptions(**option_values(read, LaunchOptions)) == where


def read(*words: str) -> Arguments:
    command = Parser()
    add_arguments(command)
    required = [word for name, value in REQUIRED.items() for word in (f"--{name}", value)]
    return Arguments.of(command.parse_args([*required, *words]))


def test_defaults_are_those_of_a_whole_run() -> None:
    ours, wholes = read(), TrainingOptions()
    assert ours == Arguments(**REQUIRED)
    assert ours.command_line() == [word for name, value in REQUIRED.items() for word in (f"--{name}", value)]
    assert {entry.name: getattr(ours, entry.name) for entry in fields(TrainingOptions)} == vars(wholes)
    assert (ours.num_workers, ours.prefetch, ours.pin_memory, ours.use_amp) == (2, 100, True, True)


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--pin_memory"], "pin_memory", True),
        (["--no-pin_memory"], "pin_memory", False),
        (["--no-pin-memory"], "pin_memory", False),
        (["--no-use-amp"], "use_amp", False),
        (["--deepspeed.save_states", "model_only"], "deepspeed_save_states", "model_only"),
        (["--deepspeed.save-states", "model_only"], "deepspeed_save_states", "model_only"),
        (["--ddp.dist_backend", "gloo"], "dist_backend", "gloo"),
        (["--set", "a.b=1", "--set", "c=2"], "overrides", ("a.b=1", "c=2")),
    ],
)
def test_spellings(words: list[str], name: str, value: object) -> None:
    assert getattr(read(*words), name) == value


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--config", "conf/cosyvoice2.tiny.yaml"], "cosyvoice2.tiny"),
        (["--config", "s3://bucket/model/recipe.yaml", "--run_name", "cosyvoice2.tiny-llm"], "cosyvoice2.tiny"),
        (["--config", "conf/own.yaml", "--run_name", "third try"], "own"),
        (["--config", "conf/own.yaml", "--run_name", "own-flow", "--model", "flow"], "own"),
    ],
)
def test_the_recipe_has_a_name(words: list[str], name: str) -> None:
    assert read(*words).recipe_name == name
