"""Discriminators, losses and turns of vocoder training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cosyflow.config.vocoder import (
    DiscriminatorConfig,
    GanLossConfig,
    HiFiGanConfig,
    HiFTConfig,
    MelLossConfig,
    SpectrogramResolution,
)
from cosyflow.models.vocoder.discriminator import Discriminator
from cosyflow.models.vocoder.gan import (
    HiFiGan,
    discriminator_turn,
    frozen,
    generator_turn,
    mel_distance,
    truncated_pointwise_relativistic,
)
from cosyflow.models.vocoder.hift import GeneratedSpeech

FRAMES = 6
SAMPLES = FRAMES * 480
TINY_DISCRIMINATOR = DiscriminatorConfig(
    periods=(2, 3),
    period_channels=(4, 8),
    resolutions=(SpectrogramResolution(256, 64, 256),),
    spectrogram_channels=4,
)
TINY = HiFiGanConfig(
    generator=HiFTConfig(base_channels=16, f0_channels=8),
    discriminator=TINY_DISCRIMINATOR,
    loss=GanLossConfig(),
)


@pytest.fixture
def gan() -> HiFiGan:
    torch.manual_seed(0)
    return HiFiGan(TINY)


@pytest.fixture
def real() -> torch.Tensor:
    return 0.3 * torch.sin(torch.arange(2 * SAMPLES) / 17).view(2, SAMPLES)


def test_discriminator_turn_leaves_the_generator_alone(gan, real):
    generated = gan.generator(torch.randn(2, 80, FRAMES))
    discriminator_turn(gan.discriminator, real, generated.waveform, TINY.loss).total.backward()
    assert all(parameter.grad is None for parameter in gan.generator.parameters())
    assert all(parameter.grad is not None for parameter in gan.discriminator.parameters())


def test_generator_turn_leaves_the_discriminator_alone(gan, real):
    generated = gan.generator(torch.randn(2, 80, FRAMES))
    loss = generator_turn(gan.discriminator, real, generated, torch.full((2, FRAMES), 200.0), TINY.loss)
    loss.total.backward()
    assert all(parameter.grad is not None for parameter in gan.generator.parameters())
    assert all(parameter.grad is None for parameter in gan.discriminator.parameters())
    assert all(parameter.requires_grad for parameter in gan.discriminator.parameters())


def test_one_run_of_the_generator_serves_both_turns(gan, real):
    """The discriminator may step between the turns, for neither turn keeps its weights for the other's gradients."""
    generated = gan.generator(torch.randn(2, 80, FRAMES))
    optimizer = torch.optim.SGD(gan.discriminator.parameters(), lr=0.1)
    discriminator_turn(gan.discriminator, real, generated.waveform, TINY.loss).total.backward()
    optimizer.step()
    generator_turn(gan.discriminator, real, generated, torch.zeros(2, FRAMES), TINY.loss).total.backward()


def test_discriminator_turn_calls_the_discriminator_once(gan, real):
    """A wrapper that averages gradients over processes allows one forward for each backward."""
    calls = []
    gan.discriminator.register_forward_hook(lambda *_: calls.append(1))
    discriminator_turn(gan.discriminator, real, torch.rand_like(real), TINY.loss)
    assert len(calls) == 1


@pytest.mark.parametrize("turn", ["discriminator", "generator"])
def test_silence_gives_finite_losses_and_gradients(gan, turn):
    silence = torch.zeros(2, SAMPLES)
    generated = gan.generator(torch.full((2, 80, FRAMES), -11.5))
    if turn == "discriminator":
        loss = discriminator_turn(gan.discriminator, silence, silence, TINY.loss)
    else:
        loss = generator_turn(gan.discriminator, silence, generated, torch.zeros(2, FRAMES), TINY.loss)
    loss.total.backward()
    gradients = [parameter.grad for parameter in gan.parameters() if parameter.grad is not None]
    assert gradients
    assert all(torch.isfinite(value).all() for value in (*loss, *gradients))


def test_turns_refuse_speech_of_another_length(gan, real):
    generated = GeneratedSpeech(real[:, :-480], torch.zeros(2, FRAMES - 1))
    with pytest.raises(ValueError, match="samples must have one shape"):
        discriminator_turn(gan.discriminator, real, generated.waveform, TINY.loss)
    with pytest.raises(ValueError, match="f0 frames must have one shape"):
        generator_turn(gan.discriminator, real[:, :-480], generated, torch.zeros(2, FRAMES), TINY.loss)


def test_freezing_ends_with_an_error():
    module = torch.nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    with pytest.raises(RuntimeError), frozen(module):
        raise RuntimeError
    assert module.weight.requires_grad
    assert not module.bias.requires_grad


def test_relativistic_loss_of_equal_margins_is_zero():
    scores = torch.ones(2, 9, requires_grad=True)
    loss = truncated_pointwise_relativistic([scores], [torch.zeros(2, 9)], tau=0.04)
    loss.backward()
    assert loss == 0
    assert scores.grad.isfinite().all()


def test_relativistic_loss_averages_margins_below_the_median():
    better, worse = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5]]), torch.zeros(1, 5)
    loss = truncated_pointwise_relativistic([better], [worse], tau=1.0)
    torch.testing.assert_close(loss, torch.tensor((0.2**2 + 0.1**2) / 2))
    assert truncated_pointwise_relativistic([better * 100], [worse], tau=0.04) == torch.tensor(0.04)


def test_parametrised_names_load_into_period_discriminators():
    torch.manual_seed(0)
    discriminator, other = Discriminator(TINY_DISCRIMINATOR), Discriminator(TINY_DISCRIMINATOR)
    parametrised = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): value
        for name, value in discriminator.state_dict().items()
    }
    other.load_state_dict(parametrised)
    waveform = torch.randn(1, SAMPLES)
    for ours, theirs in zip(discriminator(waveform), other(waveform), strict=True):
        assert torch.equal(ours.score, theirs.score)


def test_period_discriminators_pad_what_does_not_fold():
    discriminator = Discriminator(replace(TINY_DISCRIMINATOR, periods=(7,)))
    assert discriminator(torch.randn(1, 1001))[0].features[0].shape == (1, 4, 48, 7)  # 143 rows, stride 3


def test_mel_distances_of_two_sampling_rates_do_not_mix(real):
    at_24k = MelLossConfig()
    at_22k = MelLossConfig(n_fft=1024, sampling_rate=22050, hop_size=256, win_size=1024)
    other = torch.rand_like(real)
    first = mel_distance(real, other, at_24k)
    second = mel_distance(real, other, at_22k)
    assert first != second
    assert mel_distance(real, other, at_24k) == first
    assert mel_distance(real, other, replace(at_24k, fmax=8000.0)) != first


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: DiscriminatorConfig(periods=(), resolutions=()), "periods"),
        (lambda: SpectrogramResolution(512, 600, 240), "hop_size"),
        (lambda: MelLossConfig(fmax=13000.0), "fmin, fmax"),
        (lambda: GanLossConfig(tpr_loss_tau=0.0), "tpr_loss_tau"),
        (lambda: HiFiGanConfig(generator=HiFTConfig(sampling_rate=16000)), "mel_spec_transform"),
    ],
)
def test_impossible_settings_are_refused(build, field):
    with pytest.raises(ValueError, match=f"^{field}"):
        build()
