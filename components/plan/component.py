"""Component plan."""

# No postponed annotations here: KFP reads them as types.
from typing import NamedTuple

from components.base import component


@component(image="base")
def plan(
    run: str,
    data_root: str,
    recipe: str,
    overrides: list[str],
    data_url: str,
    pretrained_dir: str,
    train_subsets: list[str],
    dev_subsets: list[str],
    test_subsets: list[str],
    start_stage: int,
    stop_stage: int,
    instruct: str,
    max_reject_share: float,
    num_processes: int,
    device: str,
    num_utts_per_parquet: int,
    f0: str,
    reject_dir: str,
    check_audio: str,
    min_level: float,
    max_clipped: float,
    max_dc: float,
    max_cancelled: float,
    text_column: str,
    speaker_column: str,
    audio_column: str,
    dev_share: float,
    dev_seed: int,
    model: str,
    train_engine: str,
    num_workers: int,
    prefetch: int,
    pin_memory: bool,
    use_amp: bool,
    dpo: bool,
    ref_model: str,
    resume_from: str,
    deepspeed_config: str,
    deepspeed_save_states: str,
    strict: bool,
    mlflow_uri: str,
    experiment: str,
    checkpoint: str,
    qwen_pretrain_path: str,
    launcher: str,
    job: str,
    num_nodes: int,
    gpus_per_node: int,
    average_num: int,
    val_best: bool,
    registered_model: str,
    ui_url: str,
) -> NamedTuple(  # type: ignore[valid-type]  # KFP reads the outputs here
    "Plan",
    [
        ("record", str),
        ("subsets", list[str]),
        ("todo", str),
        ("stamp_download", str),
        ("stamp_prepare", str),
        ("stamp_speaker_embedding", str),
        ("stamp_speech_token", str),
        ("stamp_parquet", str),
        ("stamp_merge", str),
        ("stamp_train", str),
        ("stamp_average", str),
        ("stamp_export", str),
        ("stamp_register", str),
    ],
):
    """Checks the whole run, all of it at once, writes its record, and says what is to be done."""
    parameters = dict(locals())
    from collections import namedtuple

    from cosyflow.run.entry import begin

    found = begin(parameters.pop("run"), parameters)
    return namedtuple("Plan", found)(**found)
