"""Component download."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="base")
def download(
    subset: str,
    recipe: str,
    data_root: str,
    data_url: str,
    start_stage: int,
    stop_stage: int,
    manifest: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """Fetches one subset's archive, checks it against its checksum and unpacks it."""
    from cosyflow.stages import activity, download, outputs

    doing = activity("download", start_stage, stop_stage)
    outputs.publish(download.run(subset, recipe, data_root, data_url, doing), manifest, metrics)
