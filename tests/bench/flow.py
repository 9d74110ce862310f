"""Speed of the flow models against the official modules: training step, and the ONNX estimator against eager.

    python tests/bench/flow.py --upstream DIR [--device cuda] [--size tiny|mid|full] [--versions 1 2 3]

DIR is a checkout of the official repository with its Matcha-TTS submodule, in an environment that can import both.
Both sides train the same sizes on the same batches, which are the official ones: utterances as long as read speech, in
windows of 500 sorted by length, at most 2,000 mel frames with padding. Sides take turns, so that a busy machine is busy
for all; medians count. Without --upstream only ours is measured, with torch, transformers and numpy alone.
"""

from __future__ import annotations

import argparse
import io
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

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
from cosyflow.models.flow.model import build_flow

Step = Callable[[], object]

SORT_WINDOW = 500
MAX_FRAMES = 2000

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


RECIPES = {"1": "cosyvoice", "2": "cosyvoice2", "3": "cosyvoice3"}


def sizes_of(size: str, version: str) -> FlowConfig:
    """`tiny` is the size of the recipes for tests, which the official encoder of CosyVoice 2 cannot have."""
    if size == "tiny":
        from cosyflow.config.load import load_config

        return load_config(Path(__file__).resolve().parents[2] / "conf" / f"{RECIPES[version]}.tiny.yaml").flow
    return CONFIGS[size][version]


def official_batches(config: FlowConfig, count: int) -> list[FlowBatch]:
    """Of one sorting window, `count` batches of evenly spaced lengths."""
    rng = np.random.default_rng(0)
    rate = 50 if isinstance(config, CosyVoice1FlowConfig) else 25
    seconds = np.sort(np.clip(rng.lognormal(1.6, 0.6, SORT_WINDOW), 1, 20))  # median 5 s, as in read speech
    plan: list[list[int]] = [[]]
    for tokens in (seconds * rate).astype(int):
        if config.mel_frames(tokens) * (len(plan[-1]) + 1) > MAX_FRAMES:
            plan.append([])
        plan[-1].append(tokens)

    def example(number: int, tokens: int) -> FlowExample:
        mel = rng.normal(size=(config.mel_frames(tokens), config.output_size)).astype(np.float32)
        speech, embedding = rng.integers(0, config.vocab_size, tokens), rng.normal(size=192).astype(np.float32)
        return FlowExample(str(number), speech, mel, embedding)

    chosen = [plan[len(plan) * (2 * number + 1) // (2 * count)] for number in range(count)]
    return [build_flow_batch([example(*item) for item in enumerate(tokens)], config) for tokens in chosen]


def our_step(config: FlowConfig, batches: list[FlowBatch], device: torch.device, bfloat16: bool) -> Step:
    model = build_flow(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    on_device, seeds = [batch.to(device) for batch in batches], iter(range(10**6))

    def step() -> None:
        for batch in on_device:
            draws = draw(batch, config, next(seeds)).to(device)
            with torch.autocast(device.type, torch.bfloat16) if bfloat16 else nullcontext():
                output = model(batch, draws)
            (output.loss_sum / batch.num_frames).backward()
            optimizer.step()
            optimizer.zero_grad()

    return step


def official_step(config: FlowConfig, batches: list[FlowBatch], device: torch.device) -> Step:
    model = official_model(config)
    if set(model.state_dict()) != set(build_flow(config).state_dict()):
        raise SystemExit("the official model has other keys: the sizes are not the same")
    model = model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    inputs = [
        {
            "speech_token": batch.token,
            "speech_token_len": batch.token_len.int(),
            "speech_feat": batch.mel,
            "speech_feat_len": batch.mel_len.int(),
            "embedding": batch.embedding,
        }
        for batch in batches
    ]

    def step() -> None:
        for values in inputs:
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


def median_times(steps: dict[str, Step], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each in `rounds` rounds, in which they take turns, after one that does not count.

    With one thread on the CPU these are seconds of the processor, to which other work on the machine adds little.
    """
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = clock()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def measure_training(config: FlowConfig, args: argparse.Namespace, device: torch.device) -> None:
    batches = official_batches(config, args.batches)
    steps = {
        "ours, float32": our_step(config, batches, device, bfloat16=False),
        "ours, bfloat16": our_step(config, batches, device, bfloat16=True),
    }
    if args.upstream:
        steps["official, float32"] = official_step(config, batches, device)
    frames = sum(batch.num_frames for batch in batches)
    padding = 1 - frames / sum(batch.mel[:, :, 0].numel() for batch in batches)
    parameters = sum(weight.numel() for weight in build_flow(config).parameters())
    print(f"{type(config).__name__} training step, {parameters / 1e6:.0f} M parameters, {padding:.1%} padding")
    times = median_times(steps, args.rounds, device)
    for name, seconds in times.items():
        ratio = f"  {times['official, float32'] / seconds:.2f}x official" if args.upstream else ""
        print(f"  {name:18} {frames / seconds:8.0f} mel frames/s{ratio}", flush=True)


def measure_estimator(config: FlowConfig, args: argparse.Namespace) -> None:
    """One Euler step of 6 seconds of speech, on the CPU."""
    import onnxruntime

    flow = build_flow(config).eval()
    estimator = flow.decoder.estimator.requires_grad_(False)
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
    steps: dict[str, Step] = {"ONNX": lambda: session.run(None, arrays), "ours, eager": lambda: estimator(*values)}
    if args.upstream:
        official = official_model(config)
        official.load_state_dict(flow.state_dict(), strict=True)
        official_estimator = official.decoder.estimator.eval().requires_grad_(False)
        steps["official, eager"] = lambda: official_estimator(*values)
    with torch.inference_mode():
        times = median_times(steps, 4 * args.rounds, torch.device("cpu"))
    print(f"{type(config).__name__} estimator, two times {frames} frames")
    for name, seconds in times.items():
        print(f"  {name:18} {seconds * 1000:8.1f} ms  {seconds / times['ONNX']:.2f}x ONNX", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", type=Path, help="checkout of the official repository")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=["tiny", *CONFIGS], default="mid")
    parser.add_argument("--versions", nargs="+", choices=["1", "2", "3"], default=["1", "2", "3"])
    parser.add_argument("--batches", type=int, default=3, help="different batches in a step's time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["training", "estimator"])
    args = parser.parse_args()
    if args.upstream:
        sys.path[:0] = [str(args.upstream), str(args.upstream / "third_party" / "Matcha-TTS")]
    device = torch.device(args.device)
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    print(f"{processor or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for version in args.versions:
        config = sizes_of(args.size, version)
        if args.only != "estimator":
            measure_training(config, args, device)
        if args.only != "training" and find_spec("onnxruntime"):
            measure_estimator(config, args)


if __name__ == "__main__":
    main()
