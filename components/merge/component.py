"""Component merge."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="base")
def merge(
    shards: dsl.Input[list[dsl.Dataset]],
    record: str,
    stamp: str,
    lists: dsl.Output[dsl.Dataset],
    list_metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Writes the lists of training and validation shards; test subsets go into neither."""
    from cosyflow.run.task import run_stage

    run_stage("merge", record, shards, lists, list_metrics)
