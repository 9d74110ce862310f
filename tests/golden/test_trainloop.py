"""The official training loop, update by update (cases of kind cosyvoice2.llm.trainloop).

Optimizer, clipping and schedule must move the weights exactly as the official ones do when they get the same gradients.
The official loop averages each batch by itself and carries the gradient of an incomplete accumulation into the next
epoch; ours weighs every target alike and makes an update of what is left. The second test shows that difference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cosyflow.config.llm import CosyVoice2LMConfig, Qwen2Config
from cosyflow.config.training import OptimConf, SchedulerConf, TrainConf
from cosyflow.models.llm.batch import Example, PackedBatch
from cosyflow.models.llm.layout import build_batch
from cosyflow.training.engine.ddp import TorchDDP
from cosyflow.training.language_model import LanguageModelling, build_language_model
from cosyflow.training.loop import Updater
from cosyflow.training.optimizer import build_optimizer, scale_and_clip
from cosyflow.training.ranks import Ranks
from cosyflow.training.schedules import learning_rate

pytestmark = pytest.mark.golden_kind(r"cosyvoice2\.llm\.trainloop")


def train_conf(case: Any) -> TrainConf:
    train = case.info["train"]
    return TrainConf(
        optim=train["optim"],
        optim_conf=OptimConf(lr=train["lr"]),
        scheduler=train["scheduler"],
        scheduler_conf=SchedulerConf(warmup_steps=train["warmup_steps"]),
        grad_clip=train["grad_clip"],
        accum_grad=train["accum_grad"],
    )


def objective(case: Any) -> LanguageModelling:
    config = case.info["config"]
    model = build_language_model(
        CosyVoice2LMConfig(
            qwen2=Qwen2Config.from_huggingface(config["qwen2_config"]),
            speech_token_size=config["speech_token_size"],
            lsm_weight=config["lsm_weight"],
            mix_ratio=tuple(config["mix_ratio"]),
        )
    )
    model.load_state_dict(case.state_dict())
    return LanguageModelling(model)


def epoch_batches(case: Any, epoch: int, config: CosyVoice2LMConfig) -> list[PackedBatch]:
    """The batches of an epoch with the layouts that the official loop drew in it: one draw for each batch and epoch."""
    per_epoch = case.info["train"]["batches_per_epoch"]
    draws = case.tensors["rand.python_random_per_batch"].tolist()
    batches = []
    for number in range(per_epoch):
        given = {name: case.tensors[f"in.b{number}.{name}"] for name in
                 ("text_token", "text_token_len", "speech_token", "speech_token_len")}  # fmt: skip
        examples = [
            Example(f"b{number}u{row}", text[:text_length].numpy(), speech[:speech_length].numpy())
            for row, (text, text_length, speech, speech_length) in enumerate(zip(*given.values(), strict=True))
        ]
        bistream = np.full(len(examples), draws[epoch * per_epoch + number] < 0.5)
        batches.append(build_batch(examples, bistream, config))
    return batches


def test_updates_are_the_official_ones(golden_case: Any) -> None:
    case, conf, trained = golden_case, train_conf(golden_case), objective(golden_case)
    optimizer = build_optimizer(trained.model, conf)
    weights = list(trained.model.parameters())
    number = update = 0
    for epoch in range(case.info["train"]["epochs"]):
        for place, batch in enumerate(epoch_batches(case, epoch, trained.model.config)):
            outcome = trained(batch)
            loss = outcome.loss_sum / outcome.count
            assert loss.item() == pytest.approx(case.tensors["out.loss"][number].item(), rel=1e-5)
            accuracy = outcome.sums["acc"].item() / outcome.count
            assert accuracy == pytest.approx(case.tensors["out.acc"][number].item(), rel=1e-5)
            rate = learning_rate(conf, update)
            assert rate == pytest.approx(case.tensors["out.lr"][number].item(), rel=1e-6)
            (loss / conf.accum_grad).backward()
            if (place + 1) % conf.accum_grad == 0:
                gradients = [weight.grad for weight in weights if weight.grad is not None]
                norm = scale_and_clip(gradients, torch.tensor(1.0), conf.grad_clip)
                assert norm.item() == pytest.approx(case.tensors["out.grad_norm"][number].item(), rel=1e-3)
                optimizer.param_groups[0]["lr"] = rate
                optimizer.step()
                optimizer.zero_grad()
                update += 1
            number += 1

    start = case.state_dict()
    for name, norm in case.group("out.final_norm.").items():
        weight = trained.model.state_dict()[name]
        assert weight.norm().item() == pytest.approx(norm.item(), rel=1e-4), name
        moved = case.tensors[f"out.final_delta_norm.{name}"].item()
        assert (weight - start[name]).norm().item() == pytest.approx(moved, rel=1e-3, abs=1e-6), name


def test_ours_weighs_targets_alike_and_leaves_no_gradient_behind(golden_case: Any) -> None:
    case, conf, trained = golden_case, train_conf(golden_case), objective(golden_case)
    batches = epoch_batches(case, 0, trained.model.config)
    group = batches[: conf.accum_grad]
    official = sum(case.tensors["out.loss"][: conf.accum_grad].tolist()) / conf.accum_grad
    targets = [batch.num_targets for batch in group]
    ours = np.average(case.tensors["out.loss"][: conf.accum_grad].numpy(), weights=targets)
    assert len(set(targets)) > 1
    assert ours != pytest.approx(official, rel=1e-5), "the case could not tell the two means apart"

    unclipped = replace(conf, grad_clip=1e6)
    updater = Updater(trained, unclipped, TorchDDP(Ranks(0, 1, torch.device("cpu"))))
    (report,) = updater.update(group, update=0)
    assert report.means["loss"] == pytest.approx(ours, rel=1e-5)

    rest = batches[conf.accum_grad :]
    updater.update(rest, update=1, rates=[0.0])
    left = [weight.grad.clone() for weight in trained.model.parameters() if weight.grad is not None]
    trained.zero_grad()
    (trained(rest[0]).loss_sum / rest[0].num_targets).backward()
    alone = [weight.grad for weight in trained.model.parameters() if weight.grad is not None]
    for gradient, expected in zip(left, alone, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-7)
