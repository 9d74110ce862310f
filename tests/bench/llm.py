"""Training speed of the CosyVoice 2 language model: ours against the official classes, on the same utterances.

    python tests/bench/llm.py --upstream CHECKOUT [--size mid|full] [--tokens 24000] [--rounds 2]

Each row is a process of its own. tokens/s counts positions that are not padding. MFU is six operations for each weight
that a token is multiplied with, and for the causal half of attention, over the peak: that of the data sheet on known
GPUs, elsewhere that of a large matrix product measured beforehand. The official classes compute in float32 on
the CPU and in bfloat16 on CUDA. It needs torch, transformers and numpy only.

With one thread on a CPU (OMP_NUM_THREADS=1) seconds of the processor count, to which other work on the machine adds
little. --checkpointing trains ours with activation checkpointing, for the memory that large steps need.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import official_llm

from cosyflow.backends import keep_freed_memory, linear
from cosyflow.config.llm import CosyVoice2LMConfig, Qwen2Config
from cosyflow.models.llm.batch import Example
from cosyflow.models.llm.layout import build_batch, draw_bistream, sequence_length
from cosyflow.models.llm.speech_lm import SpeechLM

SIZES = {
    "tiny": Qwen2Config(
        vocab_size=500, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    ),
    # 47.3 M, of which the text table has the share that it has in the full size, a quarter
    "mid": Qwen2Config(
        vocab_size=20000, hidden_size=512, num_hidden_layers=8, num_attention_heads=8, intermediate_size=2048
    ),
    "full": Qwen2Config(),
}
SHIPPED_FRAMES = 2000
PEAK = {"H100": 989e12, "H200": 989e12, "H800": 989e12, "A100": 312e12, "A800": 312e12}
"""Dense bfloat16 operations per second, from NVIDIA's data sheets."""


def utterances(count: int, vocabulary: int) -> list[Example]:
    """Made utterances as long as read speech: 1 to 20 s, 25 speech and 3.5 to 5 text tokens a second."""
    draw = np.random.default_rng(0)
    seconds = np.clip(draw.lognormal(1.6, 0.6, count), 1, 20)
    speech, text = (seconds * 25).astype(int), (seconds * draw.uniform(3.5, 5, count)).astype(int) + 1
    return [
        Example(f"utterance {number}", draw.integers(0, vocabulary, t), draw.integers(0, 6561, s))
        for number, (t, s) in enumerate(zip(text, speech, strict=True))
    ]


def packs(examples: list[Example], config: CosyVoice2LMConfig, budget: int) -> list:
    """Batches of at most `budget` positions, in the given order."""
    result, current, used = [], [], 0
    for example in examples:
        length = sequence_length(len(example.text), len(example.speech), 0, config)
        if used + length > budget:
            result.append(current)
            current, used = [], 0
        current.append(example)
        used += length
    drawn = [draw_bistream([example.utterance for example in part], seed=0, epoch=0) for part in result]
    fixed = budget if torch.cuda.is_available() else None
    return [build_batch(part, bistream, config, fixed) for part, bistream in zip(result, drawn, strict=True)]


class Ours:
    """Our update: bfloat16 and compiled on CUDA, fused AdamW; on a CPU freed memory is kept, as in training."""

    def __init__(self, model: SpeechLM, device: torch.device) -> None:
        if device.type == "cpu":
            keep_freed_memory()
        self.model, self.device = model.to(device).train(), device
        self.forward = torch.compile(model, dynamic=False) if device.type == "cuda" else model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step(self, batch) -> None:
        batch = batch.to(self.device, non_blocking=True)
        (self.forward(batch).loss_sum / batch.num_targets).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5)
        self.optimizer.step()
        self.optimizer.zero_grad()


def measure(arguments: argparse.Namespace) -> dict:
    """One row: runs until `--tokens` tokens are trained, at least two updates, after warming up."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, amount = arguments.row.split(":")
    dtype = "bfloat16" if kind.endswith("bfloat16") else "float32"
    config = CosyVoice2LMConfig(
        qwen2=SIZES[arguments.size], compute_dtype=dtype, activation_checkpointing=arguments.checkpointing
    )
    examples = utterances(4000, config.qwen2.vocab_size)
    torch.manual_seed(0)
    if kind.startswith("ours"):
        loop = Ours(SpeechLM(config), device)
        prepared = packs(examples, config, int(amount))
        warm_up = 5 if device.type == "cuda" else 1
    else:
        model = official_llm.build(arguments.upstream, asdict(config.qwen2), config.speech_token_size)
        loop = official_llm.Loop(model, device, accum_grad=2 if int(amount) == SHIPPED_FRAMES else 1)
        prepared = official_llm.batches(examples, int(amount))
        np.random.default_rng(1).shuffle(prepared)
        warm_up = 10 if device.type == "cuda" else 2

    def count(batch) -> int:
        return batch["num_tokens"] if isinstance(batch, dict) else batch.num_tokens

    for batch in prepared[:warm_up]:
        loop.step(batch)
    _wait(device)
    tokens = steps = 0
    clock = _clock(device)
    began = clock()
    while steps < 2 or tokens < arguments.tokens:
        batch = prepared[(warm_up + steps) % len(prepared)]
        loop.step(batch)
        tokens, steps = tokens + count(batch), steps + 1
    _wait(device)
    seconds = clock() - began
    peak_bytes = (
        torch.cuda.max_memory_allocated()
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    flops = _flops_per_token(examples, config) * tokens / seconds
    return {"row": arguments.row, "tokens/s": tokens / seconds, "flops": flops, "GiB": peak_bytes / 2**30}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _flops_per_token(examples: list[Example], config: CosyVoice2LMConfig) -> float:
    with torch.device("meta"):
        model = SpeechLM(config)
    lengths = [sequence_length(len(example.text), len(example.speech), 0, config) for example in examples]
    return model.training_flops(lengths, sum(len(example.speech) + 1 for example in examples)) / sum(lengths)


def same_loss(upstream: Path, size: str) -> float:
    """Largest relative difference of the two losses over utterances that are not interleaved, with the same weights."""
    config = CosyVoice2LMConfig(qwen2=SIZES[size])
    theirs = official_llm.build(upstream, asdict(config.qwen2), config.speech_token_size)
    ours = SpeechLM(config)
    ours.load_state_dict(theirs.state_dict())
    differences = []
    with torch.no_grad(), mock.patch("random.random", return_value=1.0):
        for example in utterances(3, config.qwen2.vocab_size):
            batch = build_batch([example], np.array([False]), config)
            ours_loss = float(ours(batch).loss_sum) / batch.num_targets
            theirs_loss = float(theirs(official_llm.batches([example], 1)[0], torch.device("cpu"))["loss"])
            differences.append(abs(ours_loss - theirs_loss) / theirs_loss)
    return max(differences)


def peak_flops(dtype: str) -> tuple[float, str]:
    """Operations per second that the device can do in a type, and where the number is from."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        for known, value in PEAK.items():
            if known in name:
                return value, f"{name}, data sheet"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    left = torch.randn(2048, 2048, device=device, dtype=getattr(torch, dtype))
    clock, best = _clock(device), 0.0
    for _ in range(5):
        began = clock()
        float(linear(left, left, None)[0, 0])
        best = max(best, 2 * 2048**3 / (clock() - began))
    return best, f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, measured"


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds of the processor where a single thread of it works, else those of the day."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", type=Path, help="checkout of the official repository; without it, ours alone")
    parser.add_argument("--size", choices=SIZES, default="full" if torch.cuda.is_available() else "mid")
    parser.add_argument("--tokens", type=int, default=1_000_000 if torch.cuda.is_available() else 24_000)
    parser.add_argument(
        "--frames", type=int, nargs="+", default=[4000, 8000, 16000, 32000], help="official batch sizes"
    )
    parser.add_argument("--budgets", type=int, nargs="+", default=[8000, 32000], help="our tokens a step")
    parser.add_argument("--checkpointing", action="store_true", help="activation checkpointing in ours")
    parser.add_argument("--rounds", type=int, default=1, help="the best of so many runs counts")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(arguments)))
        return

    dtypes = ["bfloat16"] if torch.cuda.is_available() else ["float32", "bfloat16"]
    peaks = {}
    print(f"torch {torch.__version__}, size {arguments.size}")
    for dtype in dtypes:
        peaks[dtype], source = peak_flops(dtype)
        print(f"peak in {dtype} {peaks[dtype] / 1e12:.3g} TFLOP/s ({source})")
    rows = [f"ours {dtype}:{budget}" for dtype in dtypes for budget in arguments.budgets]
    if arguments.upstream:
        print(f"losses differ by {same_loss(arguments.upstream, arguments.size):.1e} at most with the same weights")
        rows += [f"official:{frames}" for frames in dict.fromkeys([SHIPPED_FRAMES, *arguments.frames])]
    best: dict[str, dict] = {}
    for _ in range(arguments.rounds):
        for row in rows:
            command = [sys.executable, __file__, *sys.argv[1:], "--row", row]
            done = subprocess.run(command, stdout=subprocess.PIPE, env=os.environ, text=True, check=False)
            if done.returncode:
                print(f"{row}: failed (status {done.returncode})", flush=True)
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            if result["tokens/s"] > best.get(row, {"tokens/s": 0})["tokens/s"]:
                best[row] = result
    report(best, peaks)


def report(best: dict[str, dict], peaks: dict[str, float]) -> None:
    print(f"{'':22} tokens/s    MFU   peak GiB")
    for row, result in best.items():
        peak = peaks["bfloat16" if "bfloat16" in row or "float32" not in peaks else "float32"]
        print(f"{row:22} {result['tokens/s']:8.0f} {100 * result['flops'] / peak:5.1f}% {result['GiB']:8.1f}")
    official = {row: result["tokens/s"] for row, result in best.items() if row.startswith("official")}
    if official:
        shipped, fastest = official.get(f"official:{SHIPPED_FRAMES}"), max(official, key=official.__getitem__)
        for row, result in best.items():
            if row.startswith("ours"):
                shares = [f"{result['tokens/s'] / official[fastest]:.2f}x of {fastest}, the fastest"]
                shares += [f"{result['tokens/s'] / shipped:.2f}x of the shipped batch size"] if shipped else []
                print(f"{row}: {', '.join(shares)}")


if __name__ == "__main__":
    main()
