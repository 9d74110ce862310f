"""One update of the weights: its normalisation, clipping, and what it does with a loss that is not finite."""

from __future__ import annotations

import copy

import pytest
import torch

from cosyflow.errors import CosyFlowError
from cosyflow.training.engine.ddp import TorchDDP
from cosyflow.training.loop import Updater
from cosyflow.training.objective import Batch, Outcome
from cosyflow.training.optimizer import scale_and_clip
from tests.unit.training.toy import ALONE, CountingData, NextToken, Sequences, conf


def weights(objective: NextToken) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in objective.model.parameters()]).clone()


def gradient(objective: NextToken) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for weight in objective.model.parameters()]).clone()


def test_every_target_weighs_the_same_however_batches_are_cut() -> None:
    settings = conf(grad_clip=1e9)
    sequences = CountingData(ALONE).sequences[:4]
    assert len({len(tokens) for tokens in sequences}) > 1, "equal lengths would hide a mean of means"
    batches = [Sequences([f"utt{number}"], tokens) for number, tokens in enumerate(sequences)]

    objective = NextToken(dropout=0.0)
    expected = copy.deepcopy(objective)
    Updater(objective, settings, TorchDDP(ALONE)).update(batches, update=0, rates=[0.0])

    outcomes = [expected.compute(batch) for batch in batches]
    (sum(o.loss_sum for o in outcomes) / sum(o.count for o in outcomes)).backward()
    torch.testing.assert_close(gradient(objective), gradient(expected))


def test_the_report_holds_means_over_all_targets() -> None:
    objective = NextToken(dropout=0.0)
    batches = [Sequences(["a"], torch.arange(5)), None, Sequences(["b"], torch.arange(9))]
    outcomes = [objective.compute(batch) for batch in batches if batch is not None]

    (report,) = Updater(objective, conf(), TorchDDP(ALONE)).update(batches, update=0, rates=[0.1], stop=True)

    assert (report.num_targets, report.num_tokens, report.stop_requested) == (12, 14, True)
    assert report.means["loss"] == pytest.approx(sum(o.loss_sum.item() for o in outcomes) / 12)
    assert report.means["acc"] == pytest.approx(sum(o.sums["acc"].item() for o in outcomes) / 12)
    assert report.flops == objective.flops(batches[0]) + objective.flops(batches[2])


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_clipping_is_that_of_torch(limit: float) -> None:
    ours = [torch.randn(3, 4), torch.randn(5)]
    theirs = [torch.nn.Parameter(tensor.clone()) for tensor in ours]
    for parameter, tensor in zip(theirs, ours, strict=True):
        parameter.grad = tensor * 0.25
    norm = torch.nn.utils.clip_grad_norm_(theirs, limit)

    torch.testing.assert_close(scale_and_clip(ours, torch.tensor(0.25), limit), norm)
    for parameter, tensor in zip(theirs, ours, strict=True):
        torch.testing.assert_close(tensor, parameter.grad)


class Overflowing(NextToken):
    """Its loss is infinite for sequences that begin with 13, its gradient alone for those that begin with 14."""

    def compute(self, batch: Batch) -> Outcome:
        outcome = super().compute(batch)
        assert isinstance(batch, Sequences)
        if batch.tokens[0] == 13:
            return Outcome(outcome.loss_sum * float("inf"), outcome.count, outcome.sums)
        if batch.tokens[0] == 14:
            zero = self.model[0].weight[0].sum() * 0.0
            return Outcome(outcome.loss_sum + zero.sqrt(), outcome.count, outcome.sums)
        return outcome


@pytest.mark.parametrize(("first", "kind", "named"), [(13, "loss", "bad"), (14, "gradient", "good, bad, other")])
def test_a_value_that_is_not_finite_stops_before_the_step_and_names_the_utterances(
    first: int, kind: str, named: str
) -> None:
    objective = Overflowing(dropout=0.0)
    updater = Updater(objective, conf(), TorchDDP(ALONE))
    good = Sequences(["good"], torch.arange(6))
    updater.update([good], update=0, rates=[0.01])
    before = weights(objective)

    batches = [good, Sequences(["bad"], torch.arange(first, first + 3)), Sequences(["other"], torch.arange(4))]
    with pytest.raises(CosyFlowError, match=f"update 1: the {kind} is not finite; its utterances are {named}. The"):
        updater.update(batches, update=1, rates=[0.01])
    assert torch.equal(weights(objective), before)


def test_after_a_bad_update_no_later_one_changes_the_weights() -> None:
    """On CUDA the host learns of it one update late; until then the device must hold the weights still."""
    objective = Overflowing(dropout=0.0)
    updater = Updater(objective, conf(), TorchDDP(ALONE))
    with pytest.raises(CosyFlowError):
        updater.update([Sequences(["bad"], torch.tensor([13, 1, 2]))], update=0, rates=[0.01])
    before = weights(objective)
    with pytest.raises(CosyFlowError):
        updater.update([Sequences(["good"], torch.arange(6))], update=1, rates=[0.01])
    assert torch.equal(weights(objective), before)
