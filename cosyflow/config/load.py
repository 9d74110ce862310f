"""Reads a recipe: YAML in, dataclasses out, and an error that names file, line, key and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from cosyflow.config import yaml_text
from cosyflow.config.official.recognition import family_in_text, is_official
from cosyflow.config.plain_yaml import PlainLoader
from cosyflow.config.recipe import Recipe, recipe_class
from cosyflow.credentials import withdraw
from cosyflow.errors import Problem, RefusalError
from cosyflow.families import family_names

Location = tuple[str | int, ...]


class RecipeError(RefusalError):
    """What is wrong with a recipe and with what replaces its settings; a problem's setting is the dotted key."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and validates a recipe.

    Args:
        path: a YAML file.
        overrides: `key.key=value` settings that replace those of the file; the value is YAML.

    Raises:
        RecipeError: the file cannot be read, or keys are unknown, missing, doubled, mistyped or impossible.
    """
    text = read_text(Path(path))
    if is_official(text):
        raise RecipeError([_is_official(str(path), text)])
    lines: dict[Location, int] = {}
    try:
        node = yaml_text.compose(text, PlainLoader)
        if not isinstance(node, yaml.MappingNode):
            raise RecipeError([Problem("recipe", f"{path}:1: not a mapping of keys to values; write KEY: VALUE")])
        problems = list(_index_lines(node, (), lines, str(path)))
        values = yaml_text.load(text, PlainLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise RecipeError([Problem("recipe", f"{path}:{line}: not YAML: {error.problem}")]) from error
    for override in overrides:
        problems += _apply_override(values, override, lines)
    recipe = _validate(values, lines, str(path), problems)
    if recipe is None or problems:
        raise RecipeError(problems)
    return recipe


def _is_official(path: str, text: str) -> Problem:
    """The official settings files have what a recipe has, in another form."""
    family = family_in_text(text)
    ready = f"take --config {family} if its values are the released ones, or " if family else ""
    make = f"make a recipe of it: cosyflow convert-recipe {path} > RECIPE.yaml"
    return Problem("recipe", f"{path}: the official settings (HyperPyYAML), not a recipe; {ready}{make}")


def values_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values, from which `load_config` makes the same."""
    values: dict[str, Any] = json.loads(TypeAdapter(type(recipe)).dump_json(recipe))
    return values


def read_text(path: Path) -> str:
    """The text of a settings file. Raises RecipeError when it cannot be read."""
    try:
        return withdraw(path.read_text(encoding="utf-8"))
    except OSError as error:
        text = f"{path}: cannot read the recipe ({error.strerror}); name a YAML file"
        raise RecipeError([Problem("recipe", text)]) from error
    except UnicodeDecodeError as error:
        raise RecipeError([Problem("recipe", f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8")]) from error


def _index_lines(node: yaml.Node, place: Location, lines: dict[Location, int], path: str) -> Iterator[Problem]:
    """Notes the line of every key and list item; gives the keys that are there twice."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*place, key.value)
            line = key.start_mark.line + 1
            if here in lines:
                text = f"{path}:{line}: the key stands in line {lines[here]} already; remove one"
                yield Problem(".".join(map(str, here)), text)
            lines[here] = line
            yield from _index_lines(value, here, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            lines[(*place, position)] = value.start_mark.line + 1
            yield from _index_lines(value, (*place, position), lines, path)


def _apply_override(values: dict[str, Any], override: str, lines: dict[Location, int]) -> Iterator[Problem]:
    """Replaces a setting; gives what is wrong with how it is written."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        yield Problem(override, "command line: a setting is written KEY=VALUE, e.g. train_conf.max_epoch=3")
        return
    *parents, last = key.split(".")
    section = values
    for position, parent in enumerate(parents):
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            yield Problem(key, f"command line: {'.'.join(parents[: position + 1])} has no keys below it")
            return
    try:
        section[last] = yaml_text.load(text, PlainLoader)
    except yaml.YAMLError:
        yield Problem(key, f"command line: the value {text!r} is not YAML")
    lines[tuple(key.split("."))] = 0


def _validate(values: dict[str, Any], lines: dict[Location, int], path: str, problems: list[Problem]) -> Recipe | None:
    """The recipe, or None after adding what is wrong to `problems`."""
    version = values.get("version")
    if version not in family_names():
        text = f"{_where(('version',), lines, path)}: {version!r} is not one of {', '.join(family_names())}"
        problems.append(Problem("version", text))
        return None
    kind = recipe_class(version)
    try:
        recipe: Recipe = TypeAdapter(kind).validate_json(json.dumps(values))
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
        problems += [_describe(error, kind, lines, path) for error in errors]
        return None
    return recipe


def _allowed_keys(section: type, place: Location) -> list[str]:
    """The keys of the section at `place` below a settings class; a number in `place` is one of a list."""
    for part in place:
        section = get_type_hints(section)[part] if isinstance(part, str) else get_args(section)[0]
    return [entry.name for entry in fields(section)]


def _describe(error: ErrorDetails, recipe: type[Recipe], lines: dict[Location, int], path: str) -> Problem:
    place: Location = error["loc"]
    problem = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":
        name, _, problem = problem.partition(": ")  # settings classes say "field: what is impossible"
        place = (*place, *name.split("."))
    elif error["type"] == "unexpected_keyword_argument":
        problem = f"unknown key; allowed here: {', '.join(_allowed_keys(recipe, place[:-1]))}"
    elif error["type"] == "missing":
        problem = "this key is missing"
    else:
        problem = f"{problem[0].lower()}{problem[1:]}, not {json.dumps(error['input'])}"
    return Problem(".".join(str(part) for part in place), f"{_where(place, lines, path)}: {problem}")


def _where(place: Location, lines: dict[Location, int], path: str) -> str:
    """File and line of a key; a missing key has no line of its own, so that of the section that lacks it."""
    while place and place not in lines:
        place = place[:-1]
    line = lines.get(place, 1)
    return f"{path}:{line}" if line else "command line"
