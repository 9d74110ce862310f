"""Component average."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="release")
def average(
    trained: dsl.Input[dsl.Model],
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
    from cosyflow.stages import average, is_active, outputs

    active = is_active("average", start_stage, stop_stage)
    outputs.publish(average.run(Manifest.read(trained.path), model, average_num, val_best, active), manifest, metrics)
