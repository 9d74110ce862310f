"""Component export."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="train")
def export(
    averaged_model: dsl.Input[dsl.Model],
    record: str,
    stamp: str,
    exported_model: dsl.Output[dsl.Model],
    export_metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Exports the averaged model as TorchScript and ONNX, and compares both with the model itself."""
    from cosyflow.run.task import run_stage

    run_stage("export", record, [averaged_model], exported_model, export_metrics)
