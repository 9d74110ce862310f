"""Component register."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="train")
def register(
    averaged: dsl.Input[dsl.Model],
    exported: dsl.Input[dsl.Model],
    data_root: str,
    recipe: str,
    overrides: list[str],
    registered_model: str,
    mlflow_uri: str,
    start_stage: int,
    stop_stage: int,
    manifest: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Registers the averaged and the exported model under an alias."""
    from cosyflow.stage import Manifest
    from cosyflow.stages import activity, outputs, register

    doing = activity("register", start_stage, stop_stage)
    made = register.run(
        Manifest.read(averaged.path),
        Manifest.read(exported.path),
        data_root,
        recipe,
        overrides,
        registered_model,
        mlflow_uri,
        doing,
    )
    outputs.publish(made, manifest, metrics)
