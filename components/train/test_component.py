"""Component train: hands on what an earlier run made, names what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from kfp import dsl

from components import train
from components.conftest import OUTSIDE, Finish, read_output
from cosyflow.errors import CosyFlowError

OPTIONS = {
    "pretrained_dir": "",
    "model": "llm",
    "train_engine": "torch_ddp",
    "launcher": "auto",
    "job": "",
    "task_config": dsl.TaskConfig(),
    "num_nodes": 1,
    "gpus_per_node": 1,
    "num_workers": 0,
    "prefetch": 2,
    "pin_memory": False,
    "use_amp": False,
    "checkpoint": "auto",
    "qwen_pretrain_path": "auto",
    "dpo": False,
    "ref_model": "",
    "deepspeed_config": "",
    "deepspeed_save_states": "model+optimizer",
    "mlflow_uri": "",
    "experiment": "test",
}


def call(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    train.python_func(
        lists=finish("merge", "lists"),
        data_root=str(data_root),
        recipe="cosyvoice2.tiny",
        overrides=[],
        **OPTIONS,
        **OUTSIDE,
        **outputs,
    )


def test_hands_on(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    finish("train", "cosyvoice2.tiny-llm")
    call(data_root, finish, outputs)
    manifest = read_output(outputs)
    assert (manifest.stage, manifest.name, manifest.reused) == ("train", "cosyvoice2.tiny-llm", True)
    assert outputs["metrics"].metadata["outputs"] == 2


def test_names_what_is_missing(data_root: Path, finish: Finish, outputs: dict[str, dsl.Artifact]) -> None:
    with pytest.raises(
        CosyFlowError, match=r"train/cosyvoice2.tiny-llm/latest.json: no such file; run the stage train"
    ):
        call(data_root, finish, outputs)
