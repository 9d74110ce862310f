"""The options that scripts use: none of them goes away. New ones need no line here; defaults are not held."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.outside.commands import cosyflow, pipelines

STAGES: Mapping[str, str] = {
    "download": "--part --subset --data_url --output_dir --data_dir --checksum --keep_archive",
    "prepare": "--src_dir --des_dir --output_dir --instruct --max_reject_share --num_threads",
    "speaker-embedding": "--dir --onnx_path --output_dir --num_thread --num_processes --max_reject_share",
    "speech-token": "--dir --onnx_path --output_dir --num_thread --num_processes --max_reject_share --codebook_size",
    "parquet": "--src_dir --des_dir --config --f0 --num_utts_per_parquet --num_processes --dpo --embedding_dir "
    "--token_dir --max_reject_share",
    "merge": "--src_dir --parquet_folder --des_dir --train_subsets --dev_subsets",
    "train": "--config --train_data --cv_data --model_dir --model --train_engine --checkpoint --qwen_pretrain_path "
    "--onnx_path --tokenizer_path --tensorboard_dir --ddp.dist_backend --num_workers --prefetch --pin_memory --use_amp "
    "--dpo --ref_model --deepspeed_config --deepspeed.save_states --timeout --resume --seed --max_steps --mlflow_uri "
    "--experiment --run_name --set --launcher --num_nodes --gpus_per_node --job",
    "average": "--dst_model --src_path --num --val_best",
    "export": "--config --output_dir --model --checkpoint --pretrained_dir --llm_model --flow_model --hifigan_model",
    "register": "--output_dir --mlflow_uri --alias --tag --stand_ins",
    "stand-ins": "--seed",
    "inspect": "--config",
    "synthesize": "--model_dir --config --set --text --prompt_wav --prompt_text -o --output --seed",
}
"""Each option in the spelling with underscores; the one with hyphens is held too."""

ONE_SPELLING = {("export", name) for name in ("--pretrained_dir", "--llm_model", "--flow_model", "--hifigan_model")}
"""Have no spelling with hyphens today."""

TAKES_A_WORD = ("register", "stand-ins", "inspect")

CHOICES: Mapping[tuple[str, str], set[str]] = {
    ("parquet", "--f0"): {"none", "harvest", "fast"},
    ("train", "--model"): {"llm", "flow", "hifigan"},
    ("train", "--train_engine"): {"torch_ddp", "deepspeed"},
    ("train", "--ddp.dist_backend"): {"nccl", "gloo"},
    ("train", "--deepspeed.save_states"): {"model_only", "model+optimizer"},
    ("train", "--resume"): {"auto", "none"},
    ("train", "--launcher"): {"auto", "local", "pytorchjob"},
    ("export", "--model"): {"llm", "flow", "hifigan"},
}

PARAMETERS = (
    "--data_root --recipe --overrides --data_url --pretrained_dir --train_subsets --dev_subsets --test_subsets "
    "--start_stage --stop_stage --instruct --max_reject_share --num_processes --num_utts_per_parquet --f0 --reject_dir "
    "--model --train_engine --launcher --job --num_nodes --gpus_per_node --num_workers --prefetch --pin_memory "
    "--no-pin_memory --use_amp --no-use_amp --checkpoint --qwen_pretrain_path --dpo --no-dpo --ref_model "
    "--deepspeed_config --deepspeed_save_states --average_num --val_best --no-val_best --mlflow_uri --experiment "
    "--registered_model"
)
"""What a run is described with, on this machine and on a server, in both spellings."""

PIPELINES: Mapping[str, str] = {
    "run": "--run-dir",
    "submit": "--host --namespace --token --kfp-experiment --run-name --images",
    "compile": "--output --images --release --kfp-cache",
    "demo": "--corpus --recipe --work-dir",
}
"""The commands' own options, in their one spelling."""


def with_hyphens(option: str) -> str:
    return option.replace("_", "-")


def options_in(shown: str) -> dict[str, str]:
    """Options that a help text lists, each with what stands behind it; those that a description mentions do not count.

    An entry is a line such as "  --num_nodes NUM_NODES, --num-nodes NUM_NODES".
    """
    listed = {}
    for entry in re.findall(r"^  (-\S.*?)(?:  |$)", shown, re.MULTILINE):
        for spelling in entry.split(", "):
            option, _, value = spelling.partition(" ")
            listed[option] = value
    return listed


@pytest.fixture(scope="module")
def stages_help() -> dict[str, str]:
    """What `cosyflow STAGE --help` shows, by stage."""
    shown = {stage: cosyflow(stage, "--help") for stage in STAGES}
    assert {stage: (ended.returncode, ended.stderr) for stage, ended in shown.items()} == dict.fromkeys(shown, (0, ""))
    return {stage: ended.stdout for stage, ended in shown.items()}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_offers_every_option_of_before_in_both_spellings(stage: str, stages_help: dict[str, str]) -> None:
    words = STAGES[stage].split()
    expected = {*words, *(with_hyphens(word) for word in words if (stage, word) not in ONE_SPELLING)}
    assert expected - options_in(stages_help[stage]).keys() == set()


@pytest.mark.parametrize("stage", TAKES_A_WORD)
def test_a_command_for_a_file_or_a_model_takes_it_without_an_option(stage: str, stages_help: dict[str, str]) -> None:
    assert re.search(r"^positional arguments:\n  \S", stages_help[stage], re.MULTILINE)


@pytest.mark.parametrize(("stage", "option"), CHOICES)
def test_an_option_takes_every_value_of_before(stage: str, option: str, stages_help: dict[str, str]) -> None:
    choices = re.fullmatch(r"\{(.*)\}", options_in(stages_help[stage])[option])
    assert choices is None or CHOICES[stage, option] <= set(choices[1].split(","))  # without a list it takes any


@pytest.mark.parametrize("command", PIPELINES)
def test_a_command_of_the_pipeline_offers_every_option_of_before(command: str) -> None:
    ended = pipelines(command, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    expected = set(PIPELINES[command].split())
    if command in ("run", "submit"):
        expected |= {*PARAMETERS.split(), *with_hyphens(PARAMETERS).split()}
    assert expected - options_in(ended.stdout).keys() == set()


def test_an_unknown_option_is_refused_with_status_2_and_nothing_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    refused = [cosyflow("stand-ins", str(folder), "--no-such"), pipelines("run", "--run-dir", str(folder), "--no-such")]
    for ended in refused:
        assert (ended.returncode, ended.stdout) == (2, "")
        assert [line for line in ended.stderr.splitlines() if "error: " in line and "--no-such" in line]
        assert "Traceback" not in ended.stderr
    assert not folder.exists()
