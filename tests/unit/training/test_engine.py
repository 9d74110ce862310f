"""Engines: which can be chosen, and that what they save is all that a run goes on from."""

from __future__ import annotations

import copy
import sys
from dataclasses import fields

import pytest
import torch

from cosyflow.checkpoint.state import Snapshot
from cosyflow.config.options import TrainingOptions
from cosyflow.errors import RefusalError
from cosyflow.training.arguments import Arguments, check_supported
from cosyflow.training.engine import ENGINES
from cosyflow.training.engine.ddp import TorchDDP
from cosyflow.training.loop import Updater
from tests.unit.training.toy import ALONE, CountingData, NextToken, conf
from tests.unit.training.toy_vocoder import CONF, batch, objective

(OPTION,) = (entry for entry in fields(TrainingOptions) if entry.name == "train_engine")
CHOICES = OPTION.metadata["settings"]["choices"]


def test_every_engine_that_can_be_chosen_is_there() -> None:
    assert ENGINES.keys() == set(CHOICES)


def test_an_engine_whose_package_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Arguments(config="c", train_data="t", cv_data="v", model_dir="m", train_engine="deepspeed")
    check_supported(chosen)
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # as if it were not installed, also where it was imported
    with pytest.raises(RefusalError, match=r"deepspeed: is not installed; install cosyflow\[deepspeed\]"):
        check_supported(chosen)


def test_a_run_goes_on_from_weights_without_an_optimizer() -> None:
    batches = list(CountingData(ALONE).batches(0, 0))
    trained, other = NextToken(seed=0), NextToken(seed=1)
    engine = TorchDDP(ALONE)
    updater = Updater(other, conf(), engine)
    engine.load(other.model, Snapshot(trained.model.state_dict(), {}))
    updater.update(batches[:2], update=0)
    assert not torch.equal(other.model.state_dict()["0.weight"], trained.model.state_dict()["0.weight"])


def test_a_run_goes_on_from_what_was_saved() -> None:
    data = CountingData(ALONE)
    batches = list(data.batches(0, 0))
    first, second = NextToken(seed=0), NextToken(seed=1)
    engine, other = TorchDDP(ALONE), TorchDDP(ALONE)
    updater, resumed = Updater(first, conf(), engine), Updater(second, conf(), other)
    updater.update(batches[:2], update=0)
    other.load(second.model, copy.deepcopy(engine.save(first.model)))
    for each in (updater, resumed):
        each.update(batches[2:4], update=1)
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name


def test_each_optimizer_of_several_is_saved_by_its_name() -> None:
    trained = objective()
    engine = TorchDDP(ALONE)
    Updater(trained, CONF, engine).update([batch("a")], update=0)
    snapshot = engine.save(trained.model)
    assert snapshot.optimizer.keys() == {"generator", "discriminator"}
    assert snapshot.weights.keys() == trained.model.state_dict().keys()
    assert snapshot.optimizer["generator"]["state"][0]["step"] == 1
