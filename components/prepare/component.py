"""Component prepare."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="base")
def prepare(
    speech: dsl.Input[dsl.Dataset],
    record: str,
    stamp: str,
    kaldi_files: dsl.Output[dsl.Dataset],
    kaldi_metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Writes the Kaldi files of a subset: wav.scp, text, utt2spk and spk2utt."""
    from cosyflow.run.task import run_stage

    run_stage("prepare", record, [speech], kaldi_files, kaldi_metrics)
