"""Component speech-token."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="extract")
def speech_token(
    prepared: dsl.Input[dsl.Dataset],
    data_root: str,
    recipe: str,
    overrides: list[str],
    pretrained_dir: str,
    num_processes: int,
    max_reject_share: float,
    start_stage: int,
    stop_stage: int,
    manifest: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """Extracts the discrete speech tokens of a subset's utterances."""
    from cosyflow.stage import Manifest
    from cosyflow.stages import activity, outputs, speech_token

    doing = activity("speech-token", start_stage, stop_stage)
    made = speech_token.run(
        Manifest.read(prepared.path),
        data_root,
        recipe,
        overrides,
        pretrained_dir,
        num_processes,
        max_reject_share,
        doing,
    )
    outputs.publish(made, manifest, metrics)
