"""Component speaker-embedding."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="extract")
def speaker_embedding(
    kaldi_files: dsl.Input[dsl.Dataset],
    record: str,
    stamp: str,
    embeddings: dsl.Output[dsl.Dataset],
    embedding_metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Extracts CAM++ embeddings of a subset's utterances and speakers."""
    from cosyflow.run.task import run_stage

    run_stage("speaker-embedding", record, [kaldi_files], embeddings, embedding_metrics)
