"""Component parquet."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="extract")
def parquet(
    prepared: dsl.Input[dsl.Dataset],
    embeddings: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    data_root: str,
    recipe: str,
    overrides: list[str],
    num_utts_per_parquet: int,
    num_processes: int,
    max_reject_share: float,
    model: str,
    f0: str,
    reject_dir: str,
    start_stage: int,
    stop_stage: int,
    manifest: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """Writes a subset's utterances, embeddings and tokens as parquet shards with their data.list."""
    from cosyflow.stage import Manifest
    from cosyflow.stages import activity, outputs, parquet

    doing = activity("parquet", start_stage, stop_stage)
    made = parquet.run(
        Manifest.read(prepared.path),
        Manifest.read(embeddings.path),
        Manifest.read(tokens.path),
        data_root,
        recipe,
        overrides,
        num_utts_per_parquet,
        num_processes,
        max_reject_share,
        model,
        f0,
        reject_dir,
        doing,
    )
    outputs.publish(made, manifest, metrics)
