"""Stage 7, export: the averaged model in the forms that the official runtime reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from cosyflow import storage
from cosyflow.config.recipe import Part
from cosyflow.stage import Manifest, StageResult
from cosyflow.stages import Activity
from cosyflow.stages.recipe import load_recipe
from cosyflow.stages.selected import run_selected


def run(
    averaged: Manifest, data_root: str, recipe: str, overrides: Sequence[str], model: str, activity: Activity
) -> Manifest:
    """Exports the averaged model (see cosyflow.release.export) and compares each file with the model itself."""
    settings = load_recipe(recipe, overrides)

    def work(output: str) -> StageResult:
        from cosyflow.release.export import export_model

        return export_model(settings, cast(Part, model), storage.join(averaged.uri, f"{model}.pt"), output)

    return run_selected(
        "export",
        averaged.name,
        storage.join(data_root, settings.version),
        inputs=[averaged],
        settings={"model": model},
        activity=activity,
        work=work,
        code=["cosyflow.models", "cosyflow.release.export"],
    )
