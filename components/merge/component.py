"""Component merge."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="base")
def merge(
    parquets: dsl.Input[list[dsl.Dataset]],
    data_root: str,
    recipe: str,
    overrides: list[str],
    train_subsets: list[str],
    dev_subsets: list[str],
    start_stage: int,
    stop_stage: int,
    manifest: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """Writes the lists of training and validation shards; test subsets go into neither."""
    from cosyflow.stage import Manifest
    from cosyflow.stages import activity, merge, outputs

    doing = activity("merge", start_stage, stop_stage)
    manifests = [Manifest.read(parquet.path) for parquet in parquets]
    made = merge.run(manifests, data_root, recipe, overrides, train_subsets, dev_subsets, doing)
    outputs.publish(made, manifest, metrics)
