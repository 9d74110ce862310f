"""HyperPyYAML as data: its tags name objects to build and functions to call, here they are noted and never built.

KEY: !new:NAME {...}      an object of a class          KEY: !ref <OTHER.KEY>       what stands there
KEY: !name:NAME {...}     a function with arguments     KEY: !ref <A> * <B>         numbers are computed with
KEY: !apply:NAME [...]    what a function returns       KEY: !copy <OTHER.KEY>      a copy of what stands there
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from cosyflow.config import yaml_text
from cosyflow.config.plain_yaml import PlainLoader
from cosyflow.errors import CosyFlowError

MOST_VALUES = 100_000
"""An official file has a few hundred; YAML's anchors can make endlessly many of a few lines."""
_PLACE = re.compile(r"<([^<>]+)>")
_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


@dataclass(frozen=True)
class Call:
    """What a tag would build or call, by its name, and what it would be given."""

    kind: str
    """`new`, `name` or `apply`."""
    name: str
    given: Any = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """`!ref` or `!copy`: another value of the file, or a formula with some."""

    text: str

    @property
    def places(self) -> list[str]:
        """The dotted keys that it names."""
        return [place.strip() for place in _PLACE.findall(self.text)]


class HyperYamlError(CosyFlowError):
    """A file that is not HyperPyYAML, or asks for what is not read here."""


class _Loader(PlainLoader):
    """Plain YAML with the tags above."""


def _content(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return {} if node.value == "" else node.value


def _call(kind: str) -> Callable[[yaml.SafeLoader, str, yaml.Node], Call]:
    return lambda loader, name, node: Call(kind, name, _content(loader, node))


def _refuse(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> Any:
    raise yaml.constructor.ConstructorError(
        None, None, f"{node.tag} is not read; put in what it stands for", node.start_mark
    )


for _kind in ("new", "name", "apply"):
    _Loader.add_multi_constructor(f"!{_kind}:", _call(_kind))
for _tag in ("!ref", "!copy"):
    _Loader.add_constructor(_tag, lambda loader, node: Reference(str(node.value)))
_Loader.add_constructor("!tuple", _content)
_Loader.add_multi_constructor("!", _refuse)


def read(text: str, path: str) -> dict[str, Any]:
    """The file's values, with `Call` and `Reference` where its tags are.

    Raises:
        HyperYamlError: names file, line and what is wrong.
    """
    try:
        tree = yaml_text.load(text, _Loader)
        if not isinstance(tree, dict):
            raise HyperYamlError(f"{path}:1: not a mapping of keys to values")
        _count(tree, 0)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise HyperYamlError(f"{path}:{line}: not HyperPyYAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise HyperYamlError(f"{path}: not HyperPyYAML: {error}") from error
    except RecursionError as error:
        raise HyperYamlError(f"{path}: nested too deeply for settings") from error
    return tree


def _count(value: Any, before: int) -> int:
    total = before + 1
    if total > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values")
    for item in items(value):
        total = _count(item, total)
    return total


def items(value: Any) -> list[Any]:
    """The values inside a value."""
    value = value.given if isinstance(value, Call) else value
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else []


def look_up(tree: dict[str, Any], place: str) -> Any:
    """The value at a dotted key, where references are followed on the way and at the end.

    Raises:
        KeyError: there is none; its argument is the key.
        HyperYamlError: a reference names what is not there or itself, or its formula is not one of numbers.
    """
    return _look_up(tree, place, ())


def _look_up(tree: dict[str, Any], place: str, on_the_way: tuple[str, ...]) -> Any:
    value: Any = tree
    for part in place.split("."):
        inside = value.given if isinstance(value, Call) else value
        if isinstance(inside, dict) and part in inside:
            value = inside[part]
        elif isinstance(inside, list) and part.isdigit() and int(part) < len(inside):
            value = inside[int(part)]
        else:
            raise KeyError(place)
        if isinstance(value, Reference):
            value = _follow(tree, value, on_the_way)
    return value


def _follow(tree: dict[str, Any], reference: Reference, on_the_way: tuple[str, ...]) -> Any:
    if reference.text in on_the_way:
        raise HyperYamlError(f"!ref {reference.text}: refers to itself")
    found = {}
    for place in reference.places:
        try:
            found[place] = _look_up(tree, place, (*on_the_way, reference.text))
        except KeyError as error:
            raise HyperYamlError(f"!ref {reference.text}: {place} is not in the file") from error
    if _PLACE.fullmatch(reference.text.strip()):
        return next(iter(found.values()))
    text = _PLACE.sub(lambda match: str(found[match[1].strip()]), reference.text)
    if any(isinstance(value, str) for value in found.values()):
        return text
    try:
        return _compute(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise HyperYamlError(f"!ref {reference.text}: not a formula of numbers") from error


def _compute(node: ast.AST) -> int | float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_compute(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        number: int | float = _OPERATORS[type(node.op)](_compute(node.left), _compute(node.right))
        return number
    raise ValueError("not a number")


def resolved(tree: dict[str, Any], value: Any) -> Any:
    """A value with every reference inside it followed. Raises HyperYamlError also when it has endlessly many values."""
    left = MOST_VALUES

    def resolve(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise HyperYamlError(f"references make more than {MOST_VALUES:,} values")
        if isinstance(value, Reference):
            return resolve(_follow(tree, value, ()))
        if isinstance(value, list | tuple):
            return [resolve(item) for item in value]
        if isinstance(value, dict):
            return {key: resolve(item) for key, item in value.items()}
        return Call(value.kind, value.name, resolve(value.given)) if isinstance(value, Call) else value

    try:
        return resolve(value)
    except RecursionError as error:
        raise HyperYamlError("references go round in a circle") from error
