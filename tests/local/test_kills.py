"""Kills at random moments cost little work and change nothing; `make soak` has a hundred of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from cosyflow.cli import main
from tests.local.jobs import final_state, logged, train_command
from tests.local.kills import SAVE, SETTINGS, train_through_kills
from tests.local.token_corpus import TokenCorpus, make_token_corpus

KILLS = int(os.environ.get("SOAK_KILLS", "10"))
MEAN_SECONDS = float(os.environ.get("SOAK_KILL_SECONDS", "3"))
LONG_SECONDS = 15.0
"""Between two kills: from here on a checkpoint every few updates keeps 95 % of the work."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> TokenCorpus:
    return make_token_corpus(tmp_path_factory.mktemp("corpus"), num_train=200)


def moved(weights: dict[str, torch.Tensor], start: dict[str, torch.Tensor]) -> float:
    """How far the weights are from others, as an L2 norm."""
    return float(torch.sqrt(sum(((weights[name] - start[name]).double() ** 2).sum() for name in weights)))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    "ranks",
    [
        pytest.param([2], marks=pytest.mark.long, id="the same number of ranks"),
        pytest.param([2, 1], id="numbers that change"),
        pytest.param([2, 1, 4], marks=pytest.mark.long, id="more ranks than cores"),
    ],
)
def test_kills_cost_little_and_change_nothing(ranks: list[int], corpus: TokenCorpus, tmp_path: Path) -> None:
    killed, whole, begun = tmp_path / "killed", tmp_path / "whole", tmp_path / "begun"
    survived = train_through_kills(corpus, killed, KILLS, MEAN_SECONDS, ranks, seed=len(ranks))
    print(survived, f"{survived.share:.3f}")
    assert survived.lost <= KILLS * 3 * SAVE, "what was being written, and what was computed meanwhile"
    if MEAN_SECONDS >= LONG_SECONDS:
        assert survived.share >= 0.95, survived

    assert main(train_command(corpus, whole, 2, survived.updates, *SETTINGS)) == 0
    assert [update for update, _ in logged(killed)] == [update for update, _ in logged(whole)]
    (weights, _), (others, _) = final_state(whole), final_state(killed)
    if ranks == [2]:
        assert [name for name, tensor in weights.items() if not torch.equal(tensor, others[name])] == []
        assert logged(killed) == logged(whole)
    else:
        assert main(train_command(corpus, begun, 1, 1, *SETTINGS)) == 0
        start, _ = final_state(begun)
        assert moved(weights, others) < 0.01 * moved(weights, start)
