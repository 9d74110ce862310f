"""Component export."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="release")
def export(
    averaged: dsl.Input[dsl.Model],
    recipe: str,
    overrides: list[str],
    model: str,
    start_stage: int,
    stop_stage: int,
    manifest: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Exports the averaged model as TorchScript and ONNX, and compares both with the model itself."""
    from cosyflow.stage import Manifest
    from cosyflow.stages import export, is_active, outputs

    active = is_active("export", start_stage, stop_stage)
    outputs.publish(export.run(Manifest.read(averaged.path), recipe, overrides, model, active), manifest, metrics)
