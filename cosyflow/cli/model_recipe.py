"""The recipe of a model directory, for the commands that load one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosyflow.errors import Problem, RefusalError

if TYPE_CHECKING:
    from cosyflow.config.recipe import Recipe


def recipe_of_model(model_dir: str, config: str, overrides: list[str], option: str = "--config") -> Recipe:
    """The recipe that is named, else the one of the official settings in the model directory.

    Args:
        model_dir: of the model.
        config: a recipe's name or file; empty where none was given.
        overrides: `key.key=value`.
        option: which names a recipe, for the refusal.

    Raises:
        RefusalError: no recipe is named, and none lies there; CosyFlowError: it is damaged, or an override is wrong.
    """
    from cosyflow.run.recipes import load_recipe
    from cosyflow.synthesis.sizes import official_settings, read_sizes

    if config:
        return load_recipe(config, overrides)
    settings = official_settings(model_dir)
    if settings is None:
        raise RefusalError([Problem(option, f"{model_dir} has no official settings; name the recipe of the model")])
    return read_sizes(settings, overrides)
