"""Component download."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="base")
def download(
    subset: str,
    record: str,
    stamp: str,
    speech: dsl.Output[dsl.Dataset],
    speech_metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Fetches one subset's archive, checks it against its checksum and unpacks it."""
    from cosyflow.run.task import run_stage

    run_stage("download", record, [], speech, speech_metrics, subset)
