"""Flow matching against the official code: state-dict keys, losses, gradients, generated mel, constant noise."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path
from typing import Any

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
from cosyflow.models.flow.batch import FlowBatch, FlowDraws
from cosyflow.models.flow.matching import fixed_noise
from cosyflow.models.flow.model import ChunkedFlow, CosyVoice1Flow, Flow, FlowCache, build_flow

RELEASED = {
    "cosyvoice1": CosyVoice1FlowConfig(),
    "cosyvoice2": CosyVoice2FlowConfig(),
    "cosyvoice3": CosyVoice3FlowConfig(),
}


def pick(official: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value := official[name], list) else value for name in names}


def encoder_config(official: dict[str, Any]) -> EncoderConfig:
    names = ("input_size", "output_size", "attention_heads", "linear_units", "num_blocks", "dropout_rate")
    rates = ("positional_dropout_rate", "attention_dropout_rate")
    chunk = official.get("static_chunk_size", 0)
    return EncoderConfig(**pick(official, *names, *rates), static_chunk_size=chunk)


def unet_config(official: dict[str, Any]) -> UNetConfig:
    names = ("in_channels", "out_channels", "channels", "dropout", "attention_head_dim", "n_blocks", "num_mid_blocks")
    causal = official["type"] == "CausalConditionalDecoder"
    chunk = official.get("static_chunk_size", 0)
    return UNetConfig(**pick(official, *names, "num_heads"), causal=causal, static_chunk_size=chunk)


def flow_config(version: str, official: dict[str, Any]) -> FlowConfig:
    """Our settings from a case's `config`, which has the names of the official yaml files."""
    matching = pick(official["decoder"]["cfm_params"], "sigma_min", "training_cfg_rate", "inference_cfg_rate")
    common = {**pick(official, "vocab_size", "output_size", "spk_embed_dim"), "matching": MatchingConfig(**matching)}
    estimator = official["decoder"]["estimator"]
    if version == "cosyvoice1":
        return CosyVoice1FlowConfig(
            **common,
            input_frame_rate=official["input_frame_rate"],
            encoder=encoder_config(official["encoder"]),
            regulator_layers=len(official["length_regulator"]["sampling_ratios"]),
            estimator=unet_config(estimator),
        )
    if version == "cosyvoice2":
        encoder = official["encoder"]
        return CosyVoice2FlowConfig(
            **common,
            encoder=UpsampleEncoderConfig(
                layers=encoder_config(encoder),
                num_up_blocks=encoder["num_up_blocks"],
                pre_lookahead_len=official["pre_lookahead_len"],
                pre_lookahead_channels=encoder["pre_lookahead_channels"],
                upsample_factor=official["token_mel_ratio"],
            ),
            estimator=unet_config(estimator),
        )
    sizes = ("dim", "depth", "heads", "dim_head", "ff_mult", "dropout", "mel_dim", "mu_dim", "spk_dim")
    return CosyVoice3FlowConfig(
        **common,
        token_mel_ratio=official["token_mel_ratio"],
        pre_lookahead_len=official["pre_lookahead_layer"]["pre_lookahead_len"],
        pre_lookahead_channels=official["pre_lookahead_layer"]["channels"],
        estimator=DiTConfig(**pick(estimator, *sizes, "static_chunk_size")),
    )


def load(case: Any) -> Flow:
    model = build_flow(flow_config(case.info["kind"].split(".")[0], case.info["config"]))
    model.load_state_dict(case.state_dict(), strict=True)
    return model.eval()


def training_step(case: Any) -> tuple[FlowBatch, FlowDraws]:
    given, drawn = case.group("in."), case.group("rand.")
    count = len(given["speech_token"])
    batch = FlowBatch(
        utterances=[str(row) for row in range(count)],
        token_lengths=given["speech_token_len"].tolist(),
        mel_lengths=given["speech_feat_len"].tolist(),
        token=given["speech_token"],
        token_len=given["speech_token_len"].long(),
        mel=given["speech_feat"],
        mel_len=given["speech_feat_len"].long(),
        embedding=given["embedding"],
    )
    draws = FlowDraws(
        streaming=bool(drawn.get("streaming", False)),
        prompt_len=drawn["prompt_len"],
        time=drawn["t"].flatten(),
        noise=drawn["z"],
        keep_condition=drawn["cfg_uniform"] > MatchingConfig().training_cfg_rate,
    )
    return batch, draws


@pytest.mark.golden_kind(r"cosyvoice[123]\.flow\.train")
def test_training_step(golden_case: Any) -> None:
    model = load(golden_case)
    batch, draws = training_step(golden_case)
    expected = golden_case.group("out.")
    seen: dict[str, torch.Tensor] = {}
    model.decoder.estimator.register_forward_hook(lambda module, args, output: seen.update(y=args[0], pred=output))

    loss = model(batch, draws).loss_sum / batch.num_frames
    torch.testing.assert_close(loss, expected["loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(seen["y"], expected["estimator_y"], rtol=0, atol=2e-4)
    frames = expected["mask"] > 0  # [B, 1, F]; nothing depends on the estimate at padding
    torch.testing.assert_close(seen["pred"] * frames, expected["pred"] * frames, rtol=0, atol=2e-4)

    loss.backward()
    norms = golden_case.group("grad.")
    found = {name: p.grad.norm() for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == norms.keys()
    for name, norm in norms.items():
        torch.testing.assert_close(
            found[name], norm, rtol=1e-3, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.golden_kind(r"cosyvoice[123]\.flow\.train")
def test_encoder(golden_case: Any) -> None:
    model = load(golden_case)
    batch, draws = training_step(golden_case)
    expected = golden_case.group("out.")
    mask = expected["mask"]  # [B, 1, F]; ours leaves the padding out where nothing depends on it
    mu = model.encode_batch(batch, draws.streaming)
    torch.testing.assert_close(mu * mask, expected["mu"] * mask, rtol=0, atol=2e-4)
    torch.testing.assert_close(model.project_speaker(batch.embedding), expected["spks"], rtol=0, atol=2e-4)


@pytest.mark.golden_kind(r"cosyvoice1\.flow\.infer")
def test_generate_cosyvoice1(golden_case: Any) -> None:
    model = load(golden_case)
    assert isinstance(model, CosyVoice1Flow)
    given, expected = golden_case.group("in."), golden_case.group("out.")
    old = given["flow_cache"]
    mel, cache = model.generate_chunk(
        given["token"].long(),
        given["prompt_token"].long(),
        given["prompt_feat"],
        given["embedding"],
        golden_case.tensors["rand.noise"],
        FlowCache(noise=old[..., 0], mu=old[..., 1]),
    )
    torch.testing.assert_close(mel, expected["mel"], rtol=0, atol=1e-3)
    torch.testing.assert_close(torch.stack((cache.noise, cache.mu), dim=3), expected["cache"], rtol=0, atol=2e-4)


@pytest.mark.golden_kind(r"cosyvoice[23]\.flow\.infer")
def test_generate_in_chunks(golden_case: Any) -> None:
    model = load(golden_case)
    assert isinstance(model, ChunkedFlow)
    given, expected, call = golden_case.group("in."), golden_case.group("out."), golden_case.info["call"]
    mel = model.generate_chunk(
        given["token"].long(),
        given["prompt_token"].long(),
        given["prompt_feat"],
        given["embedding"],
        streaming=call["streaming"],
        final=call["finalize"],
    )
    torch.testing.assert_close(mel, expected["mel"], rtol=0, atol=1e-3)


@pytest.mark.golden_kind(r"cosyvoice2/3\.flow\.fixed_noise")
def test_fixed_noise(golden_case: Any) -> None:
    """The official constructor sets every global seed to 0 for these numbers (D19); ours touches none."""
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    expected = golden_case.group("out.")
    noise = fixed_noise(*golden_case.info["config"]["shape"][1:])
    torch.testing.assert_close(noise[..., :40], expected["first_40_frames"], rtol=0, atol=0)
    torch.testing.assert_close(noise[..., 14990:15000], expected["frames_14990_15000"], rtol=0, atol=0)
    torch.testing.assert_close(noise.double().sum(), expected["sum"])
    torch.testing.assert_close(noise.double().abs().sum(), expected["abs_sum"])
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


@pytest.mark.golden_files("keytables/cosyvoice[123]_flow.json")
def test_keys(golden_file: Path) -> None:
    table = json.loads(golden_file.read_text())
    with torch.device("meta"):
        model = build_flow(RELEASED[table["model"]])
    found = [(name, list(value.shape)) for name, value in model.state_dict().items()]
    assert found == [(name, entry["shape"]) for name, entry in table["state_dict"].items()]
    assert sum(parameter.numel() for parameter in model.parameters()) == table["num_unique_parameters"]


def weight_by_rule(salt: str, name: str, shape: torch.Size) -> torch.Tensor:
    """The rule that the `full_*` cases give in `config.weights_rule`."""
    numbers = np.random.RandomState(zlib.crc32((salt + name).encode())).standard_normal(tuple(shape))
    normal = torch.from_numpy(numbers.astype(np.float32))
    if name.endswith("bias") or "pos_bias_" in name:
        return 0.1 * normal
    if len(shape) == 1:
        return 1 + 0.1 * normal
    return normal / (normal.numel() / shape[0]) ** 0.5


@pytest.mark.slow
@pytest.mark.golden_kind(r"cosyvoice[123]\.flow\.train\.full")
def test_full_size(golden_case: Any) -> None:
    model = build_flow(RELEASED[golden_case.info["kind"].split(".")[0]]).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weight_by_rule(golden_case.info["config"]["salt"], name, parameter.shape))
        batch, draws = training_step(golden_case)
        loss = model(batch, draws).loss_sum / batch.num_frames
    torch.testing.assert_close(loss, golden_case.tensors["out.loss"], rtol=1e-5, atol=0)
