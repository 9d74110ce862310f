"""Speed of the flow models against the official modules: training step, and the ONNX estimator against eager.

    python tests/bench/flow.py --upstream DIR [--device cuda] [--size mid|full] [--versions 1 2 3]

DIR is a checkout of the official repository with its Matcha-TTS submodule, in an environment that can import both. Both
sides have the same sizes and the same padded batch in train mode, each the optimizer of its trainer, and take turns,
so that a busy machine is busy for both; the best time of each counts. Without --upstream only ours is measured.
"""

from __future__ import annotations

import argparse
import io
import platform
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cosyflow.config.flow import (
    CosyVoice1FlowConfig,
    CosyVoice2FlowConfig,
    CosyVoice3FlowConfig,
    DiTConfig,
    FlowConfig,
    UNetConfig,
    UpsampleEncoderConfig,
)
from cosyflow.config.transformer import EncoderConfig
from cosyflow.models.flow.batch import FlowBatch, FlowExample, build_flow_batch, draw
from cosyflow.models.flow.model import Flow, build_flow

Step = Callable[[], None]

MID_LAYERS = EncoderConfig(256, 256, attention_heads=4, linear_units=1024, num_blocks=3, attention_dropout_rate=0.1)
MID_UNET = UNetConfig(channels=(128, 128), attention_head_dim=32, n_blocks=2, num_mid_blocks=4, num_heads=4)
CONFIGS: dict[str, dict[str, FlowConfig]] = {
    "full": {"1": CosyVoice1FlowConfig(), "2": CosyVoice2FlowConfig(), "3": CosyVoice3FlowConfig()},
    "mid": {
        "1": CosyVoice1FlowConfig(encoder=MID_LAYERS, estimator=MID_UNET),
        # the official encoder of CosyVoice 2 has 512 channels written into its code
        "2": CosyVoice2FlowConfig(
            encoder=UpsampleEncoderConfig(
                EncoderConfig(num_blocks=2, attention_dropout_rate=0.1, static_chunk_size=25)
            ),
            estimator=replace(MID_UNET, channels=(128,), causal=True, static_chunk_size=50),
        ),
        "3": CosyVoice3FlowConfig(
            pre_lookahead_channels=256, estimator=DiTConfig(dim=384, depth=6, heads=6, dim_head=64)
        ),
    },
}


def utterances(config: FlowConfig, count: int, shortest: float, longest: float) -> FlowBatch:
    """Utterances of random lengths, in seconds."""
    rng = np.random.default_rng(0)
    rate = 50 if isinstance(config, CosyVoice1FlowConfig) else 25
    examples = []
    for number in range(count):
        tokens = int(rng.uniform(shortest, longest) * rate)
        mel = rng.normal(size=(config.mel_frames(tokens), config.output_size)).astype(np.float32)
        speech, embedding = rng.integers(0, config.vocab_size, tokens), rng.normal(size=192).astype(np.float32)
        examples.append(FlowExample(str(number), speech, mel, embedding))
    return build_flow_batch(examples, config)


def our_step(model: Flow, batch: FlowBatch, device: torch.device) -> Step:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    on_device, seeds = batch.to(device), iter(range(10**6))

    def step() -> None:
        draws = draw(batch, model.config, next(seeds)).to(device)
        (model(on_device, draws).loss_sum / batch.num_frames).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def official_step(model: torch.nn.Module, batch: FlowBatch, device: torch.device) -> Step:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    values = {
        "speech_token": batch.token,
        "speech_token_len": batch.token_len.int(),
        "speech_feat": batch.mel,
        "speech_feat_len": batch.mel_len.int(),
        "embedding": batch.embedding,
    }

    def step() -> None:
        model(values, device)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def official_model(config: FlowConfig) -> torch.nn.Module:
    """The official modules, with the sizes of `config`."""
    from cosyvoice.flow import flow
    from cosyvoice.flow.decoder import CausalConditionalDecoder, ConditionalDecoder
    from cosyvoice.flow.DiT.dit import DiT
    from cosyvoice.flow.flow_matching import CausalConditionalCFM, ConditionalCFM
    from cosyvoice.flow.length_regulator import InterpolateRegulator
    from cosyvoice.transformer.encoder import ConformerEncoder
    from cosyvoice.transformer.upsample_encoder import PreLookaheadLayer, UpsampleConformerEncoder
    from omegaconf import DictConfig

    matching = {"sigma_min": 1e-6, "solver": "euler", "t_scheduler": "cosine", "reg_loss_type": "l1"}
    rates = {"training_cfg_rate": 0.2, "inference_cfg_rate": 0.7}
    path = {"in_channels": 240, "n_spks": 1, "spk_emb_dim": 80, "cfm_params": DictConfig({**matching, **rates})}
    common = {"vocab_size": config.vocab_size}

    def layers(sizes: EncoderConfig) -> dict[str, Any]:
        names = ("input_size", "output_size", "attention_heads", "linear_units", "num_blocks", "attention_dropout_rate")
        kinds = {"input_layer": "linear", "pos_enc_layer_type": "rel_pos_espnet", "use_cnn_module": False}
        return {**{name: getattr(sizes, name) for name in names}, **kinds, "macaron_style": False}

    def unet(sizes: UNetConfig) -> dict[str, Any]:
        names = ("in_channels", "out_channels", "channels", "dropout", "attention_head_dim", "n_blocks")
        kinds = {"num_mid_blocks": sizes.num_mid_blocks, "num_heads": sizes.num_heads, "act_fn": "gelu"}
        return {**{name: getattr(sizes, name) for name in names}, **kinds}

    match config:
        case CosyVoice1FlowConfig():
            return flow.MaskedDiffWithXvec(
                **common,
                input_size=config.encoder.input_size,
                encoder=ConformerEncoder(**layers(config.encoder)),
                length_regulator=InterpolateRegulator(channels=80, sampling_ratios=[1] * config.regulator_layers),
                decoder=ConditionalCFM(**path, estimator=ConditionalDecoder(**unet(config.estimator))),
            )
        case CosyVoice2FlowConfig():
            sizes = config.encoder.layers
            chunk = {"static_chunk_size": config.estimator.static_chunk_size, "num_decoding_left_chunks": -1}
            return flow.CausalMaskedDiffWithXvec(
                **common,
                input_size=sizes.input_size,
                encoder=UpsampleConformerEncoder(**layers(sizes), static_chunk_size=sizes.static_chunk_size),
                decoder=CausalConditionalCFM(
                    **path, estimator=CausalConditionalDecoder(**unet(config.estimator), **chunk)
                ),
            )
        case CosyVoice3FlowConfig():
            sizes = config.estimator
            names = (
                "dim",
                "depth",
                "heads",
                "dim_head",
                "ff_mult",
                "mel_dim",
                "mu_dim",
                "spk_dim",
                "static_chunk_size",
            )
            return flow.CausalMaskedDiffWithDiT(
                **common,
                input_size=80,
                pre_lookahead_layer=PreLookaheadLayer(80, config.pre_lookahead_channels, config.pre_lookahead_len),
                decoder=CausalConditionalCFM(
                    **path, estimator=DiT(**{name: getattr(sizes, name) for name in names}, out_channels=80)
                ),
            )
    raise TypeError(type(config).__name__)


def best_times(steps: dict[str, Step], repeats: int, device: torch.device) -> dict[str, float]:
    """Seconds of the fastest of `repeats` runs of each, in turns, after one run that does not count."""
    times: dict[str, float] = {}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:
                times[name] = min(times.get(name, float("inf")), time.perf_counter() - start)
    return times


def measure_training(config: FlowConfig, args: argparse.Namespace, device: torch.device) -> None:
    batch = utterances(config, args.batch, *args.seconds)
    model = build_flow(config).to(device).train()
    steps = {"ours": our_step(model, batch, device)}
    if args.upstream:
        official = official_model(config)
        if set(official.state_dict()) != set(model.state_dict()):
            raise SystemExit("the official model has other keys: the sizes are not the same")
        steps["official"] = official_step(official.to(device).train(), batch, device)
    times = best_times(steps, args.repeats, device)
    parameters = sum(weight.numel() for weight in model.parameters())
    print(
        f"{config.version} training step, {parameters / 1e6:.0f} M parameters, {args.batch} utterances,"
        f" {batch.num_frames} frames, {1 - batch.num_frames / batch.mel[:, :, 0].numel():.0%} padding: "
        + ", ".join(
            f"{name} {seconds:.3f} s ({batch.num_frames / seconds:.0f} frames/s)" for name, seconds in times.items()
        )
        + (f", {times['official'] / times['ours']:.2f}x" if args.upstream else "")
    )


def measure_estimator(config: FlowConfig, args: argparse.Namespace) -> None:
    """One Euler step of 6 seconds of speech, on the CPU."""
    import onnxruntime

    estimator = build_flow(config).eval().decoder.estimator.requires_grad_(False)
    frames, names = 300, ["x", "mask", "mu", "t", "spks", "cond"]
    mel = (2, config.output_size, frames)
    values = (torch.randn(mel), torch.ones(2, 1, frames), torch.randn(mel), torch.rand(2))
    values = (*values, torch.randn(2, config.output_size), torch.randn(mel))
    file = io.BytesIO()
    axes = {name: {2: "seq_len"} for name in ("x", "mask", "mu", "cond", "estimator_out")}
    outputs = {"input_names": names, "output_names": ["estimator_out"], "dynamic_axes": axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(estimator, values, file, dynamo=False, opset_version=18, **outputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    arrays = {name: value.numpy() for name, value in zip(names, values, strict=True)}
    steps: dict[str, Step] = {"ONNX": lambda: session.run(None, arrays), "eager": lambda: estimator(*values)}
    times = best_times(steps, args.repeats, torch.device("cpu"))
    print(
        f"{config.version} estimator, {frames} frames: ONNX {times['ONNX'] * 1000:.0f} ms,"
        f" eager {times['eager'] * 1000:.0f} ms, {times['eager'] / times['ONNX']:.2f}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", type=Path, help="checkout of the official repository")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=CONFIGS, default="mid")
    parser.add_argument("--versions", nargs="+", choices=["1", "2", "3"], default=["1", "2", "3"])
    parser.add_argument("--batch", type=int, default=4, help="utterances")
    parser.add_argument("--seconds", type=float, nargs=2, default=[2, 10], help="of the shortest and longest utterance")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip-onnx", action="store_true")
    args = parser.parse_args()
    if args.upstream:
        sys.path[:0] = [str(args.upstream), str(args.upstream / "third_party" / "Matcha-TTS")]
    device = torch.device(args.device)
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    print(f"{processor or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, float32")
    for version in args.versions:
        config = CONFIGS[args.size][version]
        measure_training(config, args, device)
        if not args.skip_onnx:
            measure_estimator(config, args)


if __name__ == "__main__":
    main()
