"""Stage 7, export: the averaged model as TorchScript and ONNX."""

from __future__ import annotations

from collections.abc import Sequence

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.stage import Manifest, StageResult, run_stage
from cosyflow.stages.average import run_root
from cosyflow.stages.recipe import load_recipe


def run(averaged: Manifest, recipe: str, overrides: Sequence[str], model: str, active: bool) -> Manifest:
    """Exports the one-step forward of the averaged model and compares it with the model itself."""

    def work(output: str) -> StageResult:
        from cosyflow.release.export import export_llm

        if model != "llm":
            raise CosyFlowError(f"export: {model} has no exporter yet, only llm has one")
        return export_llm(load_recipe(recipe, overrides), storage.join(averaged.uri, f"{model}.pt"), output)

    return run_stage(
        "export",
        averaged.name,
        run_root(averaged),
        inputs=[averaged],
        settings={"model": model},
        active=active,
        work=work,
        code=["cosyflow.models", "cosyflow.release.export"],
    )
