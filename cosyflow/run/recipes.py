"""Finds recipes by name, and the subsets that a run is about."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cosyflow.config.load import load_config
from cosyflow.config.recipe import Recipe
from cosyflow.errors import Problem, RefusalError

CONF_VARIABLE = "COSYFLOW_CONF"
NO_SUBSETS = "none"


@dataclass(frozen=True)
class Subsets:
    """The subsets of a run, by what each is for."""

    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def every(self) -> list[str]:
        return [*self.train, *self.dev, *self.test]


def recipe_path(recipe: str) -> Path:
    """The file of a recipe.

    Args:
        recipe: a path ending in .yaml, or a name: `<name>.yaml` in the folder COSYFLOW_CONF, else in `conf` of the
            working folder, else in `conf` of the checkout.
    """
    if "://" in recipe:
        text = f"{recipe}: a recipe is a name or a file of this machine; fetch it, or put its settings into overrides"
        raise RefusalError([Problem("recipe", text)])
    if recipe.endswith((".yaml", ".yml")):
        return Path(recipe)
    checkout = Path(__file__).resolve().parents[2] / "conf"
    folders = [Path(os.environ[CONF_VARIABLE])] if CONF_VARIABLE in os.environ else [Path("conf"), checkout]
    for folder in folders:
        path = folder / f"{recipe}.yaml"
        if path.is_file():
            return path
    known = sorted(
        {path.stem for folder in folders for path in folder.glob("*.yaml") if not path.name.startswith("images.")}
    )
    there = ", ".join(known) or "none"
    raise RefusalError(
        [Problem("recipe", f"{recipe}: no such recipe; there are {there}, or give the path of a .yaml file")]
    )


def load_recipe(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """The validated recipe of a name or path, with `key.key=value` overrides."""
    return load_config(recipe_path(recipe), overrides)


def recipe_name(recipe: str) -> str:
    """The short name of a recipe, for folders and models: "cosyvoice2.tiny"."""
    return recipe_path(recipe).stem


def resolve_subsets(
    recipe: Recipe, train: Sequence[str] = (), dev: Sequence[str] = (), test: Sequence[str] = ()
) -> Subsets:
    """The subsets asked for; an empty list means the recipe's, and `["none"]` means none (test subsets only).

    Raises:
        RefusalError: a subset is named twice, or has no usable name.
    """
    tests = () if list(test) == [NO_SUBSETS] else tuple(test) or recipe.corpus.test_subsets
    subsets = Subsets(tuple(train) or recipe.corpus.train_subsets, tuple(dev) or recipe.corpus.dev_subsets, tests)
    problems = []
    for use in ("train", "dev", "test"):
        for subset in getattr(subsets, use):
            if not is_usable(subset):
                problems.append(
                    Problem(f"{use}_subsets", f"{subset!r} is not the name of a subset; name a folder or archive")
                )
            elif subsets.every.count(subset) > 1:
                problems.append(Problem(f"{use}_subsets", f"{subset}: named twice among the subsets; name it once"))
    if problems:
        raise RefusalError(problems)
    return subsets


def is_usable(subset: str) -> bool:
    """Whether a subset can have this name, which is that of a folder or an archive."""
    return bool(subset) and "/" not in subset and subset not in (NO_SUBSETS, ".", "..")
