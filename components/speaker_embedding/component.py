"""Component speaker-embedding."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="extract")
def speaker_embedding(
    prepared: dsl.Input[dsl.Dataset],
    data_root: str,
    pretrained_dir: str,
    num_processes: int,
    max_reject_share: float,
    start_stage: int,
    stop_stage: int,
    manifest: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """Extracts CAM++ embeddings of a subset's utterances and speakers."""
    from cosyflow.stage import Manifest
    from cosyflow.stages import activity, outputs, speaker_embedding

    doing = activity("speaker-embedding", start_stage, stop_stage)
    made = speaker_embedding.run(
        Manifest.read(prepared.path), data_root, pretrained_dir, num_processes, max_reject_share, doing
    )
    outputs.publish(made, manifest, metrics)
