"""Component prepare."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="base")
def prepare(
    downloaded: dsl.Input[dsl.Dataset],
    data_root: str,
    instruct: str,
    max_reject_share: float,
    start_stage: int,
    stop_stage: int,
    manifest: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """Writes the Kaldi files of a subset: wav.scp, text, utt2spk and spk2utt."""
    from cosyflow.stage import Manifest
    from cosyflow.stages import activity, outputs, prepare

    doing = activity("prepare", start_stage, stop_stage)
    made = prepare.run(Manifest.read(downloaded.path), data_root, instruct, max_reject_share, doing)
    outputs.publish(made, manifest, metrics)
