"""Component parquet."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="extract")
def parquet(
    kaldi_files: dsl.Input[dsl.Dataset],
    embeddings: dsl.Input[dsl.Dataset],
    tokens: dsl.Input[dsl.Dataset],
    record: str,
    stamp: str,
    shards: dsl.Output[dsl.Dataset],
    shard_metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Writes a subset's utterances, embeddings and tokens as parquet shards with their data.list."""
    from cosyflow.run.task import run_stage

    run_stage("parquet", record, [kaldi_files, embeddings, tokens], shards, shard_metrics)
