"""Flow matching: the path, the solver, streaming and export."""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
import pytest
import torch

from cosyflow.config.flow import (
    CosyVoice1FlowConfig,
    CosyVoice2FlowConfig,
    CosyVoice3FlowConfig,
    DiTConfig,
    FlowConfig,
    MatchingConfig,
    UNetConfig,
    UpsampleEncoderConfig,
)
from cosyflow.config.transformer import EncoderConfig
from cosyflow.errors import CosyFlowError
from cosyflow.models.flow import dit, unet
from cosyflow.models.flow import encoder as flow_encoder
from cosyflow.models.flow.batch import FlowExample, build_flow_batch, draw
from cosyflow.models.flow.matching import Condition, FlowMatching
from cosyflow.models.flow.model import ChunkedFlow, CosyVoice1Flow, Flow, build_flow
from cosyflow.models.layers import encoder
from cosyflow.models.layers.packing import Frames, attention_mask, valid_mask

LAYERS = EncoderConfig(16, 16, attention_heads=2, linear_units=24, num_blocks=1, static_chunk_size=5)
SIZES = {"attention_head_dim": 8, "n_blocks": 1, "num_mid_blocks": 1, "num_heads": 2}
TINY: dict[str, FlowConfig] = {
    "cosyvoice1": CosyVoice1FlowConfig(
        vocab_size=50,
        encoder=EncoderConfig(16, 16, attention_heads=2, linear_units=24, num_blocks=1),
        estimator=UNetConfig(channels=(16, 16), **SIZES),
    ),
    "cosyvoice2": CosyVoice2FlowConfig(
        vocab_size=50,
        encoder=UpsampleEncoderConfig(LAYERS, num_up_blocks=1, pre_lookahead_channels=16),
        estimator=UNetConfig(channels=(16,), causal=True, static_chunk_size=10, **SIZES),
    ),
    "cosyvoice3": CosyVoice3FlowConfig(
        vocab_size=50,
        pre_lookahead_channels=16,
        estimator=DiTConfig(dim=32, depth=2, heads=2, dim_head=8, static_chunk_size=10),
    ),
}


@pytest.fixture(params=TINY)
def model(request: pytest.FixtureRequest) -> Flow:
    torch.manual_seed(0)
    return build_flow(TINY[request.param]).eval()


def examples(config: FlowConfig, *tokens: int) -> list[FlowExample]:
    rng = np.random.default_rng(0)
    return [
        FlowExample(
            utterance=f"spoken-{count}",
            speech=rng.integers(0, 50, count),
            mel=rng.normal(size=(config.mel_frames(count), 80)).astype(np.float32),
            embedding=rng.normal(size=192).astype(np.float32),
        )
        for count in tokens
    ]


def spoken(tokens: int, prompt_tokens: int, config: FlowConfig) -> tuple[torch.Tensor, ...]:
    """Tokens, prompt tokens, prompt mel and speaker embedding."""
    generator = torch.Generator().manual_seed(0)
    token = torch.randint(0, 50, (1, prompt_tokens + tokens), generator=generator)
    prompt_mel = torch.randn(1, config.mel_frames(prompt_tokens), 80, generator=generator)
    return token[:, prompt_tokens:], token[:, :prompt_tokens], prompt_mel, torch.randn(1, 192, generator=generator)


def test_velocity_is_the_derivative_of_the_path() -> None:
    matching = FlowMatching(MatchingConfig(sigma_min=0.1), torch.nn.Identity())
    mel, noise = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    time = torch.tensor([0.2, 0.7, 0.9], dtype=torch.float64)
    before, velocity = matching.point_and_velocity(mel, noise, time)
    after, _ = matching.point_and_velocity(mel, noise, time + 0.01)
    torch.testing.assert_close((after - before) / 0.01, velocity)
    start, _ = matching.point_and_velocity(mel, noise, torch.zeros_like(time))
    torch.testing.assert_close(start, noise)


def test_solver_follows_and_guides() -> None:
    """dy/dt = y + mu has the solution e^t (y0 + mu) - mu; without the condition mu is 0, and guidance doubles mu."""

    class Linear(torch.nn.Module):
        def forward(self, x, mask, mu, t, spks, cond, streaming):
            return x + mu

    mu, noise = torch.full((1, 80, 3), 2.0), torch.randn(1, 80, 3)
    condition = Condition(mu, torch.ones(1, 1, 3), torch.zeros(1, 80), torch.zeros(1, 80, 3))
    matching = FlowMatching(MatchingConfig(n_timesteps=2000, inference_cfg_rate=1.0), Linear())
    expected = math.e * (noise + 2 * mu) - 2 * mu
    torch.testing.assert_close(matching.solve(noise, condition, streaming=False), expected, rtol=2e-3, atol=2e-3)


def test_training_follows_the_draws(model: Flow) -> None:
    batch = build_flow_batch(examples(model.config, 10, 20), model.config)
    first, again, other = (model(batch, draw(batch, model.config, seed)).loss_sum for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first.isfinite()


@pytest.mark.parametrize(
    ("version", "masks"),
    [
        pytest.param("cosyvoice1", 3, id="cosyvoice1: encoder and two levels of the U-Net"),
        pytest.param("cosyvoice2", 3, id="cosyvoice2: encoder before and after upsampling, U-Net"),
        pytest.param("cosyvoice3", 1, id="cosyvoice3: transformer"),
    ],
)
def test_masks_are_built_once_for_all_layers(version: str, masks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[torch.Tensor] = []

    def build_and_note(valid: torch.Tensor, chunk_size: int) -> torch.Tensor:
        built.append(attention_mask(valid, chunk_size))
        return built[-1]

    for module in (encoder, flow_encoder, unet, dit):
        monkeypatch.setattr(module, "attention_mask", build_and_note)
    model = build_flow(TINY[version])
    batch = build_flow_batch(examples(model.config, 10, 20), model.config)
    model(batch, draw(batch, model.config, seed=1))

    assert len(built) == masks


@pytest.mark.medium
def test_a_step_lowers_the_loss(model: Flow) -> None:
    batch = build_flow_batch(examples(model.config, 10, 20), model.config)
    draws = draw(batch, model.config, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = model(batch, draws).loss_sum / batch.num_frames
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_padding_does_not_change_cosyvoice3() -> None:
    """Versions 1 and 2 let it: 1 stretches the padded batch by one factor, 2 looks ahead into padding, as released."""
    model = build_flow(TINY["cosyvoice3"]).eval()
    utterances = examples(model.config, 9, 30)
    alone, both = (build_flow_batch(chosen, model.config) for chosen in (utterances[:1], utterances))
    mu, mu_alone = model.encode_batch(both, streaming=False), model.encode_batch(alone, streaming=False)
    mask, mask_alone = (valid_mask(batch.mel_len, batch.mel.size(1))[:, None].float() for batch in (both, alone))
    torch.testing.assert_close(mu[:1, :, :18], mu_alone, rtol=1e-4, atol=1e-5)
    point, time, speaker = torch.randn(2, 80, 60), torch.rand(2), model.project_speaker(both.embedding)
    velocity = model.decoder.estimator(point, mask, mu, time, speaker, torch.zeros_like(mu))
    velocity_alone = model.decoder.estimator(
        point[:1, :, :18], mask_alone, mu_alone, time[:1], speaker[:1], torch.zeros_like(mu_alone)
    )
    torch.testing.assert_close(velocity[:1, :, :18], velocity_alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("streaming", [False, True])
def test_estimator_on_valid_frames_alone(model: Flow, streaming: bool) -> None:
    lengths = [31, 60, 7]
    length = torch.tensor(lengths)
    mask = valid_mask(length, 60)[:, None].float()
    estimator = model.decoder.estimator
    point, mu, known = torch.randn(3, 3, 80, 60)
    arguments = (
        point,
        mask,
        mu,
        torch.rand(3),
        torch.randn(3, 80),
        known,
        streaming and model.config.streaming_rate > 0,
    )
    padded, packed = estimator(*arguments), estimator(*arguments, Frames.of(length, lengths))
    torch.testing.assert_close(packed * mask, padded * mask, rtol=1e-4, atol=1e-5)


def test_generate(model: Flow) -> None:
    token, prompt_token, prompt_mel, embedding = spoken(45, 10, model.config)
    mel = model.generate(token, prompt_token, prompt_mel, embedding)
    assert mel.shape == (1, 80, model.config.mel_frames(45))
    assert torch.equal(mel, model.generate(token, prompt_token, prompt_mel, embedding))
    no_prompt = model.generate(token, prompt_token[:, :0], prompt_mel[:, :0], embedding, seed=3)
    assert no_prompt.shape == mel.shape


@pytest.mark.parametrize("version", ["cosyvoice2", "cosyvoice3"])
def test_a_prompt_with_too_much_mel_is_refused(version: str) -> None:
    """CosyVoice 1 stretches the prompt's tokens to its mel, whatever their lengths."""
    model = build_flow(TINY[version]).eval()
    token, prompt_token, prompt_mel, embedding = spoken(5, 10, model.config)
    with pytest.raises(CosyFlowError, match="same audio"):
        model.generate(token, prompt_token, prompt_mel.repeat(1, 2, 1), embedding)


@pytest.mark.parametrize("version", ["cosyvoice2", "cosyvoice3"])
def test_chunks_are_what_the_whole_utterance_has(version: str) -> None:
    """Chunks of 5 tokens: what 20 tokens and their lookahead give is kept when the rest of the 33 tokens follows."""
    torch.manual_seed(0)
    model = build_flow(TINY[version]).eval()
    assert isinstance(model, ChunkedFlow)
    token, prompt_token, prompt_mel, embedding = spoken(33, 5, model.config)
    whole = model.generate_chunk(token, prompt_token, prompt_mel, embedding, streaming=True, final=True)
    part = model.generate_chunk(token[:, :23], prompt_token, prompt_mel, embedding, streaming=True, final=False)
    assert part.shape == (1, 80, 40)
    torch.testing.assert_close(part, whole[:, :, :40], rtol=1e-3, atol=1e-3)


def test_cosyvoice1_chunks_share_their_overlap() -> None:
    torch.manual_seed(0)
    model = build_flow(TINY["cosyvoice1"]).eval()
    assert isinstance(model, CosyVoice1Flow)
    token, prompt_token, prompt_mel, embedding = spoken(80, 10, model.config)
    prompt_frames = prompt_mel.size(1)

    def noise(tokens: int, seed: int) -> torch.Tensor:
        return model.initial_noise(prompt_frames + model.config.mel_frames(tokens), seed)

    arguments = (prompt_token, prompt_mel, embedding)
    _, cache = model.generate_chunk(token[:, :50], *arguments, noise(50, seed=1), None)
    _, second = model.generate_chunk(token[:, 30:], *arguments, noise(50, seed=2), cache)
    assert cache.noise.shape == cache.mu.shape == (1, 80, prompt_frames + 34)
    assert torch.equal(second.noise[:, :, :prompt_frames], cache.noise[:, :, :prompt_frames])
    assert torch.equal(cache.noise[:, :, -34:], noise(50, seed=1)[:, :, -34:])
    assert torch.equal(second.noise[:, :, -34:], noise(50, seed=2)[:, :, -34:])


@pytest.mark.medium
def test_estimator_exports_to_onnx(model: Flow) -> None:
    """The official file has these names; `streaming` is not among them."""
    onnxruntime = pytest.importorskip("onnxruntime")
    estimator = model.decoder.estimator
    names = ["x", "mask", "mu", "t", "spks", "cond"]

    def inputs(frames: int) -> tuple[torch.Tensor, ...]:
        mel = (2, 80, frames)
        speaker = torch.randn(2, 80)
        return torch.randn(mel), torch.ones(2, 1, frames), torch.randn(mel), torch.rand(2), speaker, torch.randn(mel)

    file = io.BytesIO()
    axes = {name: {2: "seq_len"} for name in (*names[:3], "cond", "estimator_out")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            estimator,
            inputs(64),
            file,
            dynamo=False,
            opset_version=18,
            input_names=names,
            output_names=["estimator_out"],
            dynamic_axes=axes,
        )
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for frames in (16, 33, 150):
        given = inputs(frames)
        found = session.run(None, dict(zip(names, (part.numpy() for part in given), strict=True)))[0]
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(found), estimator(*given), rtol=1e-4, atol=1e-4)


def test_upsampling_encoder_can_be_scripted() -> None:
    encoder = build_flow(TINY["cosyvoice2"]).eval().encoder
    scripted = torch.jit.freeze(torch.jit.script(encoder))
    x, valid = torch.randn(2, 13, 16), valid_mask(torch.tensor([13, 6]), 13)
    for streaming in (False, True):
        torch.testing.assert_close(scripted(x, valid, streaming), encoder(x, valid, streaming), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (lambda: UNetConfig(channels=(16, 16), causal=True, static_chunk_size=10), "channels"),
        (lambda: UNetConfig(channels=(12,)), "channels"),
        (lambda: CosyVoice1FlowConfig(estimator=UNetConfig(in_channels=240)), "estimator.in_channels"),
        (lambda: CosyVoice2FlowConfig(estimator=UNetConfig()), "estimator.causal"),
        (lambda: CosyVoice3FlowConfig(estimator=DiTConfig(mel_dim=100)), "estimator.mel_dim"),
        (lambda: UpsampleEncoderConfig(EncoderConfig()), "layers.static_chunk_size"),
        (lambda: MatchingConfig(n_timesteps=0), "n_timesteps"),
    ],
)
def test_impossible_settings_are_named(settings, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: "):
        settings()
