"""The recipe of a model directory: the one that is named, or that of the official settings which lie in it."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from cosyflow import storage
from cosyflow.config.load import load_config, values_of
from cosyflow.config.official.read import read_official
from cosyflow.config.recipe import Recipe
from cosyflow.families import family_names
from cosyflow.families.parts import QWEN2_FOLDER
from cosyflow.scratch import scratch_folder


def official_settings(model_dir: str) -> str | None:
    """The official settings file of a model directory, e.g. cosyvoice2.yaml; None when it has none."""
    places = (storage.join(model_dir, f"{name}.yaml") for name in family_names())
    return next((place for place in places if storage.exists(place)), None)


def read_sizes(settings: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of an official settings file, with `key.key=value` overrides.

    Raises:
        CosyFlowError: the file is damaged or of no known family; RecipeError: an override is wrong.
    """
    text = storage.read_text(settings)
    folder = storage.join(storage.parent(settings), QWEN2_FOLDER)
    if storage.exists(folder):
        with storage.local_copy(folder) as qwen2:
            recipe, _ = read_official(text, settings, str(qwen2))
    else:
        recipe, _ = read_official(text, settings)
    if not overrides:
        return recipe
    with scratch_folder() as scratch:
        path = scratch / storage.name(settings)
        path.write_text(yaml.safe_dump(values_of(recipe)), encoding="utf-8")
        return load_config(path, overrides)
