"""Several processes train as one does: the same weights, the same losses, and one account of what went wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import yaml

from cosyflow.errors import CosyFlowError
from cosyflow.launch.local import run_locally
from cosyflow.training.engine.ddp import TorchDDP
from cosyflow.training.loop import Updater, train
from cosyflow.training.ranks import process_group
from tests.unit.training.toy import ALONE, CountingData, NextToken, conf, quiet, training
from tests.unit.training.toy_vocoder import CONF, UPDATES, WithoutChance, objective, run_updates

pytestmark = pytest.mark.slow


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Of the 13 sequences the second process gets none in the last update."""
    run_locally("tests.unit.training.toy", [str(tmp_path), "--accum-grad", "4"], 2, tmp_path / "train.log")

    settings = conf(accum_grad=4)
    objective = NextToken(dropout=0.0)
    ending = train(
        training(objective, settings, data=CountingData(ALONE, 13, per_update=4)), quiet(settings, ALONE), None
    )
    for name, weight in torch.load(tmp_path / "epoch_2_whole.pt", weights_only=True).items():
        torch.testing.assert_close(weight, objective.model.state_dict()[name], rtol=1e-4, atol=1e-6)
    record = yaml.safe_load((tmp_path / "epoch_2_whole.yaml").read_text())
    assert record["loss_dict"]["loss"] == pytest.approx(ending.position.epochs[2]["cv_loss"], rel=1e-5)
    assert record["step"] == ending.position.update


def test_a_loss_that_is_not_finite_on_one_rank_is_told_by_name(tmp_path: Path) -> None:
    arguments = [str(tmp_path), "--infinite", "utt5"]
    with pytest.raises(
        CosyFlowError, match=r"^update \d: the loss is not finite; its utterances are utt5\. The weights"
    ):
        run_locally("tests.unit.training.toy", arguments, 2, tmp_path / "train.log")
    assert not list(tmp_path.glob("*.pt")), "nothing is saved after it"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_one_process_with_a_gpu_agrees_with_itself_by_nccl() -> None:
    with process_group(None, 60) as ranks:
        assert dist.get_backend() == "nccl"
        total = ranks.sum_(torch.full((3,), 2.0, device=ranks.device))
        assert total.tolist() == [2.0, 2.0, 2.0]
        assert ranks.gather("utt1") == ["utt1"]
        assert ranks.share(lambda: "shared") == "shared"
        ranks.barrier()
    assert not dist.is_initialized()


def test_one_process_without_a_gpu_makes_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with process_group(None, 60) as ranks:
        assert ranks.is_alone
        assert not dist.is_initialized()
        assert ranks.gather("utt1") == ["utt1"]


def test_two_processes_train_a_vocoder_as_one(tmp_path: Path) -> None:
    """In turns and over accumulated batches, of which the second process has none at times."""
    run_locally("tests.unit.training.toy_vocoder", [str(tmp_path / "two.pt")], 2, tmp_path / "train.log")
    two = torch.load(tmp_path / "two.pt", weights_only=True)

    one = WithoutChance(objective().model)
    start = {name: weight.clone() for name, weight in one.model.state_dict().items()}
    updater = Updater(one, replace(CONF, accum_grad=4), TorchDDP(ALONE))
    losses = run_updates(one, updater, [[*first, *second] for first, second in UPDATES])
    assert two["same"], "the ranks hold equal weights"
    assert two["losses"] == pytest.approx(losses, rel=1e-5)
    for name, weight in one.model.state_dict().items():
        torch.testing.assert_close(two["weights"][name], weight, rtol=1e-3, atol=2e-6)
    for part in ("generator.", "discriminator."):
        moved = [not torch.equal(two["weights"][name], start[name]) for name in start if name.startswith(part)]
        assert any(moved), part
