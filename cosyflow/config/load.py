"""Reads a recipe: YAML in, dataclasses out, and an error that names file, line, key and what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from cosyflow.config.recipe import RECIPES, Recipe
from cosyflow.errors import CosyFlowError

Location = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, except that 1e-5 is a number, as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Reads and validates a recipe.

    Args:
        path: a YAML file.
        overrides: `key.key=value` settings that replace those of the file; the value is YAML.

    Raises:
        CosyFlowError: the file cannot be read, or a key is unknown, missing, doubled, mistyped or impossible.
    """
    text = _read(Path(path))
    try:
        node = yaml.compose(text, Loader=_Loader)
        if not isinstance(node, yaml.MappingNode):
            raise CosyFlowError(f"{path}:1: a recipe is a mapping of keys to values")
        lines: dict[Location, int] = {}
        _index_lines(node, (), lines, str(path))
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise CosyFlowError(f"{path}:{line}: not YAML: {error.problem}") from error
    for override in overrides:
        _apply_override(values, override, lines)
    return _validate(values, lines, str(path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CosyFlowError(f"{path}: cannot read the recipe ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise CosyFlowError(f"{path}: not UTF-8 at byte {error.start}") from error


def _index_lines(node: yaml.Node, place: Location, lines: dict[Location, int], path: str) -> None:
    """Notes the line of every key and list item. Raises CosyFlowError for a key that is there twice."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*place, key.value)
            if here in lines:
                raise CosyFlowError(
                    f"{path}:{key.start_mark.line + 1}: the key {key.value} stands in line {lines[here]} already"
                )
            lines[here] = key.start_mark.line + 1
            _index_lines(value, here, lines, path)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            lines[(*place, position)] = value.start_mark.line + 1
            _index_lines(value, (*place, position), lines, path)


def _apply_override(values: dict[str, Any], override: str, lines: dict[Location, int]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise CosyFlowError(f"{override}: a setting is written KEY=VALUE, e.g. train_conf.max_epoch=3")
    *parents, last = key.split(".")
    section = values
    for position, parent in enumerate(parents):
        section = section.setdefault(parent, {})
        if not isinstance(section, dict):
            raise CosyFlowError(f"{override}: {'.'.join(parents[: position + 1])} has no keys below it")
    try:
        section[last] = yaml.load(text, Loader=_Loader)  # noqa: S506 - _Loader is a SafeLoader
    except yaml.YAMLError as error:
        raise CosyFlowError(f"{override}: the value is not YAML") from error
    lines[tuple(key.split("."))] = 0


def _validate(values: dict[str, Any], lines: dict[Location, int], path: str) -> Recipe:
    version = values.get("version")
    if version not in RECIPES:
        line = lines.get(("version",), 1)
        raise CosyFlowError(f"{path}:{line}: version: {version!r} is not one of {', '.join(RECIPES)}")
    try:
        recipe: Recipe = TypeAdapter(RECIPES[version]).validate_json(json.dumps(values))
    except ValidationError as invalid:
        errors = [_describe(error, RECIPES[version], lines, path) for error in invalid.errors(include_url=False)]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise CosyFlowError(errors[0] + more) from invalid
    return recipe


def _allowed_keys(section: type, place: Location) -> list[str]:
    """The keys of the section at `place` below a settings class; a number in `place` is one of a list."""
    for part in place:
        section = get_type_hints(section)[part] if isinstance(part, str) else get_args(section)[0]
    return [entry.name for entry in fields(section)]


def _describe(error: ErrorDetails, recipe: type[Recipe], lines: dict[Location, int], path: str) -> str:
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
    known = place
    while known and known not in lines:  # a missing key has no line of its own
        known = known[:-1]
    line = lines.get(known, 1)
    where = f"{path}:{line}" if line else "command line"
    return f"{where}: {'.'.join(str(part) for part in place)}: {problem}"
