"""DeepSpeed trains as torch_ddp does, whatever ZeRO shares out, and a run goes on under either.

Each case is a job of its own: of DeepSpeed 0.19.8 an engine of ZeRO 2 made after one of ZeRO 3 trains wrongly.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosyflow.errors import CosyFlowError
from cosyflow.launch.local import run_locally


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "zero"),
    [
        pytest.param(2, {"stage": 1}, marks=pytest.mark.long),
        (2, {"stage": 2}),
        (2, {"stage": 3}),
        pytest.param(2, {"stage": 2, "offload_optimizer": {"device": "cpu"}}, marks=pytest.mark.long),
        pytest.param(1, {"stage": 2}, marks=pytest.mark.long),
        pytest.param(1, {"stage": 3}, marks=pytest.mark.long),
    ],
    ids=["1x2", "2x2", "3x2", "offload", "2x1", "3x1"],
)
def test_twenty_updates_are_those_of_torch_ddp(ranks: int, zero: dict[str, object], tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    run_locally("tests.local.two_engines", [str(output), json.dumps(zero)], ranks, tmp_path / "train.log", on_cpu=True)
    found = json.loads(output.read_text())
    assert found["updates"] == 20
    assert found["numbers"] < 1e-5, "losses and gradient norms, relative"
    assert found["weights"] < 1e-5
    assert found["moments"] < 1e-5
    assert found["groups"], "the settings of the optimizer in a checkpoint"
    assert found["resumed"] == 0.0
    assert found["rest"], "a resumed run computes the losses of one that was not interrupted"
    assert found["by_torch"] < 1e-5, "torch_ddp goes on from a checkpoint of DeepSpeed"
    assert found["by_deepspeed"] < 1e-5, "DeepSpeed goes on from a checkpoint of torch_ddp"
    assert found["own_memory"], "no weight of a checkpoint brings the memory of others into its file"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_changes_nothing(tmp_path: Path) -> None:
    words = [str(tmp_path), "--infinite", "utt5", "--zero", "3"]
    with pytest.raises(
        CosyFlowError, match=r"^update \d: the loss is not finite; its utterances are utt5\. The weights"
    ):
        run_locally("tests.unit.training.toy", words, 2, tmp_path / "train.log", on_cpu=True)
    assert not list(tmp_path.glob("*.pt")), "nothing is saved after it"
