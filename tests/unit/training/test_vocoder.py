"""Adversarial updates: what each turn changes, what is generated once, and which utterances can serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from cosyflow.dataset.alignment import Alignment
from cosyflow.dataset.utterances import TokenTable, UtteranceIndex
from cosyflow.errors import CosyFlowError
from cosyflow.families.cosyvoice2.recipe import CosyVoice2Recipe
from cosyflow.training.engine.ddp import TorchDDP
from cosyflow.training.loop import Updater
from cosyflow.training.vocoder import VocoderObjective
from cosyflow.training.vocoder_data import WindowBatch, usable_windows, window_start
from tests.unit.training.toy import ALONE
from tests.unit.training.toy_vocoder import CONF, FRAMES, batch, objective

ALIGNMENT = Alignment.of(CosyVoice2Recipe(version="cosyvoice2"))


def weights(trained: VocoderObjective) -> dict[str, dict[str, torch.Tensor]]:
    model = trained.model
    parts = {"generator": model.generator, "discriminator": model.discriminator}
    return {name: {key: value.clone() for key, value in part.state_dict().items()} for name, part in parts.items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(before[name], after[name]) for name in before)


def test_an_update_generates_once_and_changes_both(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = objective()
    updater = Updater(trained, CONF, TorchDDP(ALONE))
    before = weights(trained)
    calls = []
    trained.model.generator.register_forward_hook(lambda *_: calls.append(1))
    (report,) = updater.update([batch("a", "b")], update=0, rates=[1e-3, 1e-3])
    after = weights(trained)
    assert len(calls) == 1
    assert changed(before["generator"], after["generator"])
    assert changed(before["discriminator"], after["discriminator"])
    assert report.num_targets == 2
    assert report.num_tokens == 2 * FRAMES
    assert list(report.means) == ["loss", *VocoderObjective.metrics]
    assert report.grad_norm > 0


def test_the_generators_turn_leaves_the_discriminators_without_gradient() -> None:
    trained = objective()
    windows = batch("a")
    trained.convince(windows, trained.generate(windows)).total.backward()
    assert all(weight.grad is None for weight in trained.model.discriminator.parameters())
    trained.zero_grad()
    trained.judge(windows, trained.generate(windows)).total.backward()
    assert all(weight.grad is None for weight in trained.model.generator.parameters())


def test_the_discriminators_learn_alone_at_first() -> None:
    trained = objective(warmup=1)
    updater = Updater(trained, CONF, TorchDDP(ALONE))
    before = weights(trained)
    updater.update([batch("a")], update=0, rates=[1e-3, 1e-3])
    warm = weights(trained)
    assert not changed(before["generator"], warm["generator"])
    assert changed(before["discriminator"], warm["discriminator"])
    updater.update([batch("a")], update=1, rates=[1e-3, 1e-3])
    assert changed(warm["generator"], weights(trained)["generator"])


def test_every_window_weighs_the_same() -> None:
    """f0, which depends on no noise, shows the mean over windows of batches of two and of one."""
    pair, single = batch("a", "b"), replace(batch("c", seed=1), f0=torch.full((1, FRAMES), 300.0))
    trained = objective()
    with torch.no_grad():
        distances = [(windows.f0 - trained.generate(windows).f0).abs().mean().item() for windows in (pair, single)]
    conf = replace(CONF, accum_grad=2)
    (report,) = Updater(trained, conf, TorchDDP(ALONE)).update([pair, single], update=0, rates=[1e-3, 1e-3])
    assert report.num_targets == 3
    assert report.means["f0"] == pytest.approx((2 * distances[0] + distances[1]) / 3, rel=1e-5)


def test_gradients_are_clipped_apart() -> None:
    trained = objective()
    conf = replace(CONF, grad_clip=1e-3, grad_clip_d=2e-3)
    Updater(trained, conf, TorchDDP(ALONE)).update([batch("a")], update=0, rates=[1e-3, 1e-3])
    for part, limit in ((trained.model.generator, 1e-3), (trained.model.discriminator, 2e-3)):
        gradients = [weight.grad for weight in part.parameters() if weight.grad is not None]
        assert torch.nn.utils.get_total_norm(gradients).item() == pytest.approx(limit, rel=1e-3)


def test_a_loss_that_is_not_finite_names_its_utterances_and_changes_nothing() -> None:
    trained = objective()
    updater = Updater(trained, CONF, TorchDDP(ALONE))
    before = weights(trained)
    broken = batch("bad")
    broken.waveform[0, 100] = torch.inf
    with pytest.raises(CosyFlowError, match=r"update 0: .*not finite; its utterances are bad"):
        updater.update([broken], update=0, rates=[1e-3, 1e-3])
    after = weights(trained)
    assert not changed(before["generator"], after["generator"])
    assert not changed(before["discriminator"], after["discriminator"])


def test_validation_is_the_same_each_time_and_in_any_batch() -> None:
    trained = objective().eval()
    with torch.no_grad():
        together = trained(batch("a", "b"))
        again = trained(batch("a", "b"))
        both = batch("a", "b")
        alone = [
            trained(WindowBatch([name], *(values[place : place + 1] for values in (both.waveform, both.mel, both.f0))))
            for place, name in enumerate(both.utterances)
        ]
    assert together.loss_sum == again.loss_sum
    for name in ("mel", "f0"):
        parts = sum(outcome.sums[name] for outcome in alone)
        assert parts.item() == pytest.approx(together.sums[name].item(), rel=1e-4)


def test_windows_depend_on_utterance_and_epoch_alone() -> None:
    starts = [window_start("utt", 1, epoch, frames=20, window=8) for epoch in range(500)]
    assert starts[:5] == [window_start("utt", 1, epoch, frames=20, window=8) for epoch in range(5)]
    assert set(starts) == set(range(13))  # every place at which it fits, the last one too
    assert window_start("utt", 1, 0, frames=8, window=8) == 0


@pytest.fixture
def make_pitched_index() -> Callable[..., UtteranceIndex]:
    def make(tokens: list[int], voiced: list[int] | None) -> UtteranceIndex:
        count = len(tokens)
        return UtteranceIndex(
            shards=("parquet_000000000.tar",),
            shard=np.zeros(count, np.int32),
            row=np.arange(count, dtype=np.int32),
            utts=np.array([f"utt{place}" for place in range(count)], dtype=object),
            num_samples=np.array(tokens, np.int64) * 960,
            sample_rate=np.full(count, 24000, np.int32),
            speech_len=np.array(tokens, np.int32),
            rejected_len=np.full(count, -1, np.int32),
            text=TokenTable.of([[1]] * count),
            instruct=None,
            voiced_frames=None if voiced is None else np.array(voiced, np.int32),
        )

    return make


def test_utterances_that_cannot_serve_are_named_when_the_run_is_planned(
    make_pitched_index: Callable[..., UtteranceIndex],
) -> None:
    result = usable_windows(make_pitched_index([26, 25, 40], [9, 9, 0]), ALIGNMENT, window=52)
    assert result.index.utts.tolist() == ["utt0"]
    assert result.dropped == {"less than the 52 mel frames of a training window": ["utt1"], "no voiced frame": ["utt2"]}
    with pytest.raises(CosyFlowError, match=r"no utterance is left .* 1 with less than the 52 mel frames .*utt0"):
        usable_windows(make_pitched_index([10], [9]), ALIGNMENT, window=52)


@pytest.mark.parametrize("voiced", [None, [5, -1]])
def test_shards_without_f0_are_named(make_pitched_index: Callable[..., UtteranceIndex], voiced: list[int]) -> None:
    with pytest.raises(CosyFlowError, match=r"parquet_000000000\.tar: has no column pitch_feat; .* --f0 harvest"):
        usable_windows(make_pitched_index([40, 40], voiced), ALIGNMENT, window=52)
