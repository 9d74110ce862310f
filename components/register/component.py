"""Component register."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="train")
def register(
    averaged_model: dsl.Input[dsl.Model],
    exported_model: dsl.Input[dsl.Model],
    record: str,
    stamp: str,
    registered_models: dsl.Output[dsl.Model],
    registry_metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Registers the averaged and the exported model under an alias."""
    from cosyflow.run.task import run_stage

    run_stage("register", record, [averaged_model, exported_model], registered_models, registry_metrics)
