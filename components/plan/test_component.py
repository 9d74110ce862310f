"""Component plan: names the subsets, refuses what cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest
from kfp import local

from components import plan
from cosyflow.errors import CosyFlowError

NOTHING_CHOSEN: dict[str, object] = {
    "overrides": [],
    "train_subsets": [],
    "dev_subsets": [],
    "test_subsets": [],
    "pretrained_dir": "",
}
DATA_ONLY = {"start_stage": -1, "stop_stage": 0}


def test_the_subsets_are_the_recipes() -> None:
    subsets = plan.python_func(recipe="cosyvoice2", **NOTHING_CHOSEN, **DATA_ONLY)
    assert subsets == [
        "train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other", "test-clean", "test-other",
    ]  # fmt: skip


def test_chosen_subsets_come_first_and_none_means_no_tests() -> None:
    chosen = {**NOTHING_CHOSEN, "train_subsets": ["a", "b"], "dev_subsets": ["c"], "test_subsets": ["none"]}
    assert plan.python_func(recipe="cosyvoice2", **chosen, **DATA_ONLY) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"recipe": "cosyvoice9"}, "cosyvoice9: no such recipe; there are .*cosyvoice2"),
        ({"train_subsets": ["dev-clean"]}, "dev-clean: named twice"),
        ({"train_subsets": ["../other"]}, "'../other' is not the name of a subset"),
        ({"dev_subsets": ["none"]}, "'none' is not the name of a subset"),
        ({"start_stage": 3, "stop_stage": 2}, "stages 3 to 2"),
        ({"stop_stage": 8}, "stages -1 to 8: give a range within -1"),
        ({"overrides": ["train_conf.max_epoch=0"]}, "max_epoch"),
        ({"stop_stage": 1, "pretrained_dir": "models"}, r"models/campplus.onnx: no such file; copy campplus.onnx"),
        ({"start_stage": 2, "stop_stage": 2, "pretrained_dir": "models"}, r"models/speech_tokenizer_v2.onnx: no such"),
    ],
)
def test_refuses(changed: dict[str, object], message: str) -> None:
    with pytest.raises(CosyFlowError, match=message):
        plan.python_func(**{"recipe": "cosyvoice2", **NOTHING_CHOSEN, **DATA_ONLY, **changed})


def test_runs_under_the_local_runner(tmp_path: Path) -> None:
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path))
    chosen = {**NOTHING_CHOSEN, "train_subsets": ["a"], "dev_subsets": ["b"], "test_subsets": ["none"]}
    assert plan(recipe="cosyvoice2", **chosen, **DATA_ONLY).output == ["a", "b"]
