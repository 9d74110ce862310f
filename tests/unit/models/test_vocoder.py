"""The HiFT generator: its excitation, its weights' names, its streams and what it refuses."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyflow.config.vocoder import HiFTConfig, IstftParams, cosyvoice1, cosyvoice2, cosyvoice3
from cosyflow.models.vocoder.hift import HiFTGenerator
from cosyflow.models.vocoder.source import FixedNoise, HarmonicSource, SourceNoise

TINY = {
    version: replace(
        config(), base_channels=16, f0_channels=8, resblock_kernel_sizes=(3,), resblock_dilation_sizes=((1, 3),)
    )
    for version, config in {1: cosyvoice1, 2: cosyvoice2, 3: cosyvoice3}.items()
}
VERSIONS = pytest.mark.parametrize("version", [1, 2, 3])


def tiny(version: int) -> HiFTGenerator:
    torch.manual_seed(version)
    return HiFTGenerator(TINY[version])


def mel_frames(frames: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 80, frames, generator=torch.Generator().manual_seed(frames))


@VERSIONS
def test_makes_samples_per_frame_of_each_frame(version):
    generator = tiny(version)
    waveform, f0 = generator(mel_frames(7, batch=2))
    assert waveform.shape == (2, 7 * {1: 256, 2: 480, 3: 480}[version])
    assert f0.shape == (2, 7)
    assert waveform.abs().max() <= 0.99


@VERSIONS
def test_every_parameter_learns(version):
    generator = tiny(version)
    waveform, f0 = generator(mel_frames(7))
    (waveform.square().mean() + f0.mean()).backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@VERSIONS
def test_randomness_comes_from_the_given_generator_alone(version):
    generator = tiny(version)
    state = torch.get_rng_state()
    first, again, other = (
        generator.inference(mel_frames(12), rng=torch.Generator().manual_seed(seed)).waveform for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@VERSIONS
def test_older_names_of_weight_norm_load(version):
    generator, other = tiny(version), HiFTGenerator(TINY[version])
    older = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in generator.state_dict().items()
    }
    assert any(name.endswith("weight_g") for name in older)
    other.load_state_dict(older)
    noise = generator.m_source.draw_noise(1, 9, torch.device("cpu"))
    assert torch.equal(generator(mel_frames(9), noise).waveform, other(mel_frames(9), noise).waveform)


@VERSIONS
def test_removing_weight_norm_keeps_the_output(version):
    generator = tiny(version)
    noise = generator.m_source.draw_noise(1, 9, torch.device("cpu"))
    before = generator(mel_frames(9), noise).waveform
    generator.remove_weight_norm()
    torch.testing.assert_close(generator(mel_frames(9), noise).waveform, before, rtol=0, atol=1e-5)
    names = generator.state_dict().keys()
    assert "conv_pre.weight" in names
    assert not any("parametrizations" in name for name in names)


@pytest.mark.parametrize("version", [1, 2])
def test_cached_excitation_continues_a_stream(version):
    generator = tiny(version)
    first = generator.inference(mel_frames(9))
    cache = first.source[:, :, -100:]
    second = generator.inference(mel_frames(9), source_cache=cache)
    assert torch.equal(second.source[:, :, :100], cache)
    assert not torch.equal(second.source[:, :, 100:], first.source[:, :, 100:])


@settings(deadline=None, max_examples=8)
@given(frames=st.integers(9, 30))
def test_a_part_of_a_stream_sounds_like_the_whole(frames):
    generator = tiny(3)
    mel = mel_frames(30)
    whole = generator.inference(mel).waveform
    part = generator.inference(mel[:, :, :frames], final=False).waveform
    assert part.shape[1] == (frames - generator.frames_held_back) * 480
    torch.testing.assert_close(part, whole[:, : part.shape[1]], rtol=0, atol=1e-5)


def test_inference_changes_nothing_in_the_model():
    generator = tiny(3)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    generator.inference(mel_frames(12))
    after = copy.deepcopy(generator).state_dict()
    assert after.keys() == before.keys()
    for name, value in after.items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])


def test_only_a_causal_generator_takes_parts():
    with pytest.raises(ValueError, match="only a causal generator"):
        tiny(2).inference(mel_frames(20), final=False)
    with pytest.raises(ValueError, match="8 mel frames: a part needs more than 8"):
        tiny(3).inference(mel_frames(8), final=False)


def test_fixed_noise_of_a_longer_request_repeats_the_shorter():
    noise, block = FixedNoise(harmonics=9), FixedNoise.BLOCK
    cpu = torch.device("cpu")
    short, long = noise.take(block - 1, cpu), noise.take(block + 5, cpu)
    assert torch.equal(long[:, : block - 1], short)
    assert torch.equal(FixedNoise(harmonics=9).take(block + 5, cpu), long)
    assert long.shape == (1, block + 5, 9)
    assert 0 <= long.min() <= long.max() < 1


@VERSIONS
def test_voiced_frames_sound_at_f0_and_its_harmonics(version):
    source = HarmonicSource(TINY[version])
    seconds, f0 = 1, 200.0
    frames = seconds * source.sampling_rate // source.samples_per_frame
    silent = SourceNoise(torch.zeros(1, frames * source.samples_per_frame, source.harmonics))
    sines = source.harmonic_plus_noise(torch.full((1, frames), f0), silent)[0]
    if version == 3:  # holds the phase within a frame, so that what is left is its value at frames
        assert torch.equal(sines[0:480], sines[0:1].expand(480, -1))
        return
    loudest = torch.fft.rfft(sines, dim=0).abs().argmax(0) * source.sampling_rate / len(sines)
    expected = f0 * torch.arange(1, source.harmonics + 1)
    torch.testing.assert_close(loudest, expected, rtol=0, atol=2.0)


@VERSIONS
def test_unvoiced_frames_are_noise(version):
    source = HarmonicSource(TINY[version])
    noise = source.draw_noise(1, 20, torch.device("cpu"), torch.Generator().manual_seed(0))
    unvoiced = source.harmonic_plus_noise(torch.full((1, 20), 9.0), noise)
    torch.testing.assert_close(unvoiced, 0.1 / 3 * noise.additive)


@pytest.mark.medium
def test_phase_of_a_minute_is_exact():
    source = HarmonicSource(TINY[1])
    frames = 60 * 22050 // 256
    f0 = 150 + 50 * torch.sin(torch.arange(frames) / 20).unsqueeze(0)
    silent = SourceNoise(torch.zeros(1, frames * 256, source.harmonics))
    sines = source.harmonic_plus_noise(f0, silent)[0, :, -1]
    cycles = (9 * f0.double() / 22050).repeat_interleave(256, dim=1).cumsum(1)[0]
    torch.testing.assert_close(sines, (0.1 * torch.sin(2 * math.pi * cycles)).float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"base_channels": 12}, "base_channels"),
        ({"upsample_rates": (8, 5)}, "upsample_kernel_sizes"),
        ({"upsample_rates": ()}, "upsample_rates"),
        ({"upsample_kernel_sizes": (16, 11, 8)}, "upsample_kernel_sizes"),
        ({"resblock_kernel_sizes": (3, 7)}, "resblock_dilation_sizes"),
        ({"resblock_kernel_sizes": (3, 7, 10)}, "resblock_kernel_sizes"),
        ({"nb_harmonics": -1}, "nb_harmonics"),
        ({"sampling_rate": 0}, "sampling_rate"),
    ],
)
def test_impossible_settings_are_refused(change, field):
    with pytest.raises(ValueError, match=f"^{field}"):
        replace(HiFTConfig(), **change)


def test_impossible_transform_is_refused():
    with pytest.raises(ValueError, match=r"^hop_len"):
        IstftParams(n_fft=16, hop_len=16)
