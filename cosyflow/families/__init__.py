"""The model families: a folder each says all that is special to one, and nothing else names a family or its parts.

The modules of a family's folder:

    __init__.py  FAMILY: its facts (`cosyflow.families.family.Family`)
    recipe.py    RECIPE: the class of its recipes, a `cosyflow.config.recipe.Recipe`
    text.py      build_tokenizer(directory): its text tokenizer, from a pretrained directory
    models.py    BUILDERS: for each part what builds the model of a recipe, as it speaks
    training.py  BUILDERS: for each part what builds its training, of `cosyflow.training.setup.Setup`
    weights.py   recognise(shapes): what of the family a checkpoint seems to be
    export.py    FILES: for each part what its model is exported as

Facts are plain values and can be asked for anywhere; the other modules are imported when they are needed (`facet`), so
that a recipe is read without PyTorch.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import Any, Literal

from cosyflow.errors import CosyFlowError
from cosyflow.families.family import Family, Part

Facet = Literal["recipe", "text", "models", "training", "weights", "export"]

DEFAULT_RECIPE = "cosyvoice2"
"""Name of the recipe that is trained when none is named."""


def family_names() -> list[str]:
    """The families that there are: the folders of this package, in alphabetical order."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__) if found.ispkg)


@cache
def family(name: str) -> Family:
    """The facts of a family. Raises CosyFlowError when there is none of that name."""
    if name not in family_names():
        raise CosyFlowError(f"there is no model family {name!r}; there are {', '.join(family_names())}")
    found: Family = import_module(f"{__name__}.{name}").FAMILY
    return found


def families() -> list[Family]:
    """The facts of every family."""
    return [family(name) for name in family_names()]


def facet(name: str, module: Facet) -> Any:
    """A module of a family's folder, imported now; see this package's text for what it has.

    Raises:
        CosyFlowError: there is no such family.
    """
    return import_module(f"{__name__}.{family(name).name}.{module}")


def part_names() -> tuple[str, ...]:
    """The names of the parts of all families, each once, in the order in which they speak."""
    return tuple(dict.fromkeys(part for each in families() for part in each.parts))


def part(name: str) -> Part:
    """A part where its family does not matter, which has one name and one meaning in all. Raises KeyError."""
    return next(each.parts[name] for each in families() if name in each.parts)
