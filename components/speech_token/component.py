"""Component speech-token."""

# No postponed annotations here: KFP reads them as types.
from kfp import dsl

from components.base import component


@component(image="extract")
def speech_token(
    kaldi_files: dsl.Input[dsl.Dataset],
    record: str,
    stamp: str,
    tokens: dsl.Output[dsl.Dataset],
    token_metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Extracts the discrete speech tokens of a subset's utterances."""
    from cosyflow.run.task import run_stage

    run_stage("speech-token", record, [kaldi_files], tokens, token_metrics)
