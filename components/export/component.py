"""Component export."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="train")
def export(
    averaged: dsl.Input[dsl.Model],
    data_root: str,
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
    from cosyflow.stages import activity, export, outputs

    doing = activity("export", start_stage, stop_stage)
    outputs.publish(
        export.run(Manifest.read(averaged.path), data_root, recipe, overrides, model, doing), manifest, metrics
    )
