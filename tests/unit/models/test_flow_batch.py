"""Flow batches: padding, bad utterances, and random numbers that depend on the seed alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cosyflow.config.flow import CosyVoice1FlowConfig, CosyVoice2FlowConfig, CosyVoice3FlowConfig
from cosyflow.errors import CosyFlowError
from cosyflow.models.flow.batch import FlowBatch, FlowExample, build_flow_batch, draw
from cosyflow.models.flow.matching import BLOCK_FRAMES, fixed_noise, seeded_noise

CONFIG = CosyVoice2FlowConfig(vocab_size=50)


def example(tokens: int, frames: int | None = None) -> FlowExample:
    rng = np.random.default_rng(tokens)
    return FlowExample(
        utterance=f"spoken-{tokens}",
        speech=rng.integers(0, 50, tokens),
        mel=rng.normal(size=(2 * tokens if frames is None else frames, 80)).astype(np.float32),
        embedding=rng.normal(size=192).astype(np.float32),
    )


def test_batch_pads_with_zeros() -> None:
    batch = build_flow_batch([example(3), example(5)], CONFIG)
    assert batch.utterances == ["spoken-3", "spoken-5"]
    assert batch.num_frames == 16
    assert batch.token.shape == (2, 5)
    assert batch.mel.shape == (2, 10, 80)
    assert not batch.mel[0, 6:].any()
    assert batch.token[0].tolist() == [*example(3).speech.tolist(), 0, 0]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (example(0), "no speech tokens"),
        (example(4, frames=9), "stand for 8 mel frames, but it has 9"),
        (replace(example(4), speech=np.array([1, 2, 3, 50])), r"1\.\.50 are not all in the model's 0\.\.49"),
        (replace(example(4), mel=np.zeros((8, 100), dtype=np.float32)), r"shape \(8, 100\)"),
        (replace(example(4), embedding=np.zeros(512, dtype=np.float32)), r"\(512,\), the model needs 192"),
    ],
)
def test_a_bad_utterance_is_named(wrong: FlowExample, told: str) -> None:
    with pytest.raises(CosyFlowError, match=f"{wrong.utterance}: .*{told}"):
        build_flow_batch([example(6), wrong], CONFIG)


def test_frames_of_tokens() -> None:
    """CosyVoice 1 has 50 tokens and 86.1 frames a second, so a few frames more or less are the same audio."""
    config = CosyVoice1FlowConfig(vocab_size=50)
    assert config.mel_frames(50) == 86
    build_flow_batch([example(50, frames=84)], config)
    with pytest.raises(CosyFlowError, match="stand for 86 mel frames"):
        build_flow_batch([example(50, frames=100)], config)
    assert CosyVoice3FlowConfig().mel_frames(50) == 100


def many() -> FlowBatch:
    return build_flow_batch([replace(example(100), utterance=f"utt{number}") for number in range(400)], CONFIG)


@pytest.mark.medium
def test_draws_depend_on_the_seed_alone() -> None:
    batch = many()
    torch.manual_seed(1)
    first = draw(batch, CONFIG, seed=7)
    state = torch.get_rng_state()
    second = draw(batch, CONFIG, seed=7)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.noise, second.noise)
    assert torch.equal(first.prompt_len, second.prompt_len)
    assert not torch.equal(first.noise, draw(batch, CONFIG, seed=8).noise)


def test_draws_of_an_utterance_do_not_depend_on_its_batch() -> None:
    short, long = replace(example(20), utterance="short"), replace(example(50), utterance="long")
    alone, together = (build_flow_batch(examples, CONFIG) for examples in ([short], [long, short]))
    first, second = draw(alone, CONFIG, seed=3), draw(together, CONFIG, seed=3)
    assert torch.equal(first.noise[0], second.noise[1, :, : first.noise.size(2)])
    assert not second.noise[1, :, first.noise.size(2) :].any()
    for name in ("time", "prompt_len", "keep_condition"):
        assert getattr(first, name)[0] == getattr(second, name)[1]


def test_draws_have_the_right_shares() -> None:
    drawn = draw(many(), CONFIG, seed=0)
    prompted = drawn.prompt_len > 0
    assert 0.4 < prompted.float().mean() < 0.6
    assert drawn.prompt_len.max() <= 60  # 0.3 of 200 frames
    assert 25 < drawn.prompt_len[prompted].float().mean() < 36
    assert 0.72 < drawn.keep_condition.float().mean() < 0.88
    assert 0.45 < drawn.time.mean() < 0.55
    streaming = [draw(build_flow_batch([example(2)], CONFIG), CONFIG, seed).streaming for seed in range(100)]
    assert 30 < sum(streaming) < 70


def test_cosyvoice1_never_streams() -> None:
    config = CosyVoice1FlowConfig(vocab_size=50)
    batch = build_flow_batch([example(50, frames=86)], config)
    assert not any(draw(batch, config, seed).streaming for seed in range(50))
    with pytest.raises(ValueError, match=r"^streaming_rate"):
        CosyVoice1FlowConfig(streaming_rate=0.5)


def test_fixed_noise_of_a_long_utterance_begins_with_that_of_a_short_one() -> None:
    long = fixed_noise(4, BLOCK_FRAMES + 10)
    assert long.shape == (1, 4, BLOCK_FRAMES + 10)
    assert torch.equal(long[:, :, :100], fixed_noise(4, 100))
    assert not torch.equal(long[:, :, BLOCK_FRAMES:], long[:, :, :10])


def test_seeded_noise() -> None:
    assert torch.equal(seeded_noise(4, 10, seed=3), seeded_noise(4, 10, seed=3))
    assert not torch.equal(seeded_noise(4, 10, seed=3), seeded_noise(4, 10, seed=4))
