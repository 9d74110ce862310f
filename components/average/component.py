"""Component average."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="train")
def average(
    checkpoints: dsl.Input[dsl.Model],
    record: str,
    stamp: str,
    averaged_model: dsl.Output[dsl.Model],
    averaging_metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Averages the best checkpoints of a training run."""
    from cosyflow.run.task import run_stage

    run_stage("average", record, [checkpoints], averaged_model, averaging_metrics)
