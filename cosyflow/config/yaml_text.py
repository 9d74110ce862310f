"""YAML that one does not trust: whatever is wrong with it, also its depth or its size, is a YAMLError."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

MOST_VALUES = 1_000_000
"""That a text may stand for: an alias can stand for a list of aliases, and so on, more than fit into any memory."""


class UnfitError(yaml.MarkedYAMLError):
    """What yaml itself does not say, or not as what is wrong at a place: no text, too much of it, impossible values."""

    def __init__(self, problem: str, mark: yaml.Mark | None = None) -> None:
        super().__init__(problem=problem, problem_mark=mark)


def compose(text: str | bytes, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> yaml.Node | None:
    """The nodes of a text. Raises YAMLError, also when they are nested too deeply or are too many."""
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=loader)
    except RecursionError:
        raise UnfitError("nested too deeply") from None
    except yaml.reader.ReaderError as error:
        raise UnfitError(f"{error.reason} (position {error.position})") from None
    except ValueError as error:  # of bytes that are no text
        raise UnfitError(" ".join(str(error).split())) from None
    if node is not None:
        _check_size(node)
    return node


def load(text: str | bytes, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """The values of a text. Raises YAMLError for whatever is wrong with it."""
    compose(text, loader)
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - it is a SafeLoader
    except yaml.YAMLError:
        raise
    except RecursionError:
        raise UnfitError("nested too deeply") from None
    except Exception as error:  # of the constructors of dates and numbers
        raise UnfitError(f"a value that is none ({' '.join(str(error).split())[:100]})") from None


def _check_size(root: yaml.Node) -> None:
    sizes: dict[int, int] = {}
    entered: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting[-1]
        missing = [child for child in _children(node) if id(child) not in sizes]
        if id(node) in sizes:
            waiting.pop()
        elif not missing:
            sizes[id(node)] = 1 + sum(sizes[id(child)] for child in _children(node))
            if sizes[id(node)] > MOST_VALUES:
                raise UnfitError(f"its aliases stand for more than {MOST_VALUES} values", node.start_mark)
            waiting.pop()
        elif id(node) in entered:
            raise UnfitError("a value that contains itself", node.start_mark)
        else:
            entered.add(id(node))
            waiting += missing


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        for pair in node.value:
            yield from pair
