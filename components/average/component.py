"""Component average."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="train")
def average(
    trained: dsl.Input[dsl.Model],
    data_root: str,
    recipe: str,
    overrides: list[str],
    model: str,
    average_num: int,
    val_best: bool,
    start_stage: int,
    stop_stage: int,
    manifest: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
):
    """Averages the best checkpoints of a training run."""
    from cosyflow.stage import Manifest
    from cosyflow.stages import activity, average, outputs

    doing = activity("average", start_stage, stop_stage)
    made = average.run(Manifest.read(trained.path), data_root, recipe, overrides, model, average_num, val_best, doing)
    outputs.publish(made, manifest, metrics)
