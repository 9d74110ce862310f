"""Speed of training the CosyVoice 2 vocoder against the official code: its data, its step, and the loop of both.

    python tests/bench/vocoder.py --upstream DIR [--size released|tiny|smallest] [--only data|step|loop] [--device cuda]

DIR is a checkout of the official repository with its Matcha-TTS submodule, in an environment that can import both. Both
sides read the same shards, in one process: the official path computes f0 by Harvest in its loop, ours reads what the
parquet stage stored. A step is both adversarial turns; both sides begin it with the same weights. The loop reads all
utterances once and makes a step of each batch. Sides take turns; medians count. Without --upstream only ours is
measured; `--only step` then needs torch and numpy alone, but for the size tiny, which is that of the recipe.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cosyflow.backends import keep_freed_memory
from cosyflow.config.training import GanTrainConf
from cosyflow.config.vocoder import DiscriminatorConfig, HiFiGanConfig, HiFTConfig
from cosyflow.models.vocoder.gan import HiFiGan
from cosyflow.training.engine.ddp import TorchDDP
from cosyflow.training.loop import Updater
from cosyflow.training.ranks import Ranks
from cosyflow.training.vocoder import VocoderObjective
from cosyflow.training.vocoder_data import WindowBatch

WINDOW_FRAMES = 52
"""The official window of 24,480 samples with its padding."""
SPEECH = Path(__file__).resolve().parents[3] / "shared" / "speech"
TINY_RECIPE = Path(__file__).resolve().parents[2] / "conf" / "cosyvoice2.tiny.yaml"

SMALLEST = HiFiGanConfig(
    HiFTConfig(base_channels=16, f0_channels=16),
    DiscriminatorConfig(periods=(2,), period_channels=(4, 8), resolutions=()),
)
"""Of no use but here: with it a step on a CPU is not many times slower than reading its batch."""

Batches = Callable[[], Iterator[Any]]
"""Gives the batches of one pass over the data."""
Step = Callable[[Any], object]
"""Makes a step of a batch."""


def sizes_of(name: str) -> HiFiGanConfig:
    if name == "tiny":
        from cosyflow.config.load import load_config

        return load_config(TINY_RECIPE).hifigan
    return {"released": HiFiGanConfig(), "smallest": SMALLEST}[name]


def median_seconds(sides: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Of each side, in `rounds` rounds in which they take turns, after one that does not count.

    With one thread on the CPU these are seconds of the processor, to which other work on the machine adds little.
    """
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            start = clock()
            side()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def make_data(files: list[Path], folder: Path, args: argparse.Namespace) -> dict[str, Batches]:
    """Shards of the recordings below `folder`, and how each side reads them."""
    from cosyflow.config.load import load_config
    from cosyflow.dataset.index import build_index
    from cosyflow.text.tokenizer import build_tokenizer
    from cosyflow.training.planned_data import LoaderSettings
    from cosyflow.training.vocoder_data import VocoderData
    from tests.local.speech_corpus import make_speech_corpus

    start = time.perf_counter()
    corpus = make_speech_corpus(folder, "cosyvoice2", files, f0="fast")
    made = len(files) / (time.perf_counter() - start)
    print(f"parquet stage with --f0 fast, once: {made:.1f} utterances/s")
    recipe = load_config(corpus.recipe)
    index = build_index(corpus.data_list, build_tokenizer(recipe.version, corpus.tokenizer))
    frames = args.windows * WINDOW_FRAMES
    conf = replace(recipe.train_conf_gan, frames_per_step=frames, window_frames=WINDOW_FRAMES)
    data = VocoderData(index, index, recipe, conf, Ranks(0, 1, torch.device("cpu")), LoaderSettings())
    epochs = iter(range(10**6))
    sides: dict[str, Batches] = {"ours": lambda: data.batches(next(epochs), 0)}
    if args.upstream:
        import official_vocoder

        shards = Path(corpus.data_list).read_text().split()
        sides["official"] = lambda: official_vocoder.batches(shards, corpus.tokenizer, HiFiGanConfig(), frames)
    return sides


def make_steps(config: HiFiGanConfig, args: argparse.Namespace) -> dict[str, Step]:
    device = torch.device(args.device)
    torch.manual_seed(0)
    model = HiFiGan(config)
    sides: dict[str, Step] = {}
    if args.upstream:
        import official_vocoder

        sides["official"] = official_vocoder.build_step(config, model.state_dict(), device)
    objective = VocoderObjective(model.to(device).train())
    updater = Updater(objective, GanTrainConf(), TorchDDP(Ranks(0, 1, device)))
    updates = iter(range(10**6))
    return {"ours": lambda batch: updater.update([batch], next(updates)), **sides}


def count(batch: WindowBatch | dict[str, Any]) -> int:
    """Utterances of a batch of either side."""
    return len(batch.utterances) if isinstance(batch, WindowBatch) else len(batch["utts"])


def data_rates(data: dict[str, Batches], utterances: int, args: argparse.Namespace) -> dict[str, float]:
    """Utterances a second."""

    def read(batches: Batches) -> None:
        assert sum(count(batch) for batch in batches()) == utterances

    sides = {name: lambda batches=batches: read(batches) for name, batches in data.items()}
    seconds = median_seconds(sides, args.rounds, torch.device("cpu"))
    return {name: utterances / value for name, value in seconds.items()}


def step_rates(steps: dict[str, Step], config: HiFiGanConfig, args: argparse.Namespace) -> dict[str, float]:
    """Windows a second."""
    device = torch.device(args.device)
    samples = WINDOW_FRAMES * config.generator.samples_per_frame
    windows = WindowBatch(
        utterances=[str(number) for number in range(args.windows)],
        waveform=0.1 * torch.randn(args.windows, samples),
        mel=torch.randn(args.windows, config.generator.in_channels, WINDOW_FRAMES),
        f0=torch.full((args.windows, WINDOW_FRAMES), 200.0),
    ).to(device)
    official = {"speech_feat": windows.mel.transpose(1, 2), "speech": windows.waveform, "pitch_feat": windows.f0}
    batches = {"ours": windows, "official": official}
    sides = {name: lambda step=step, batch=batches[name]: step(batch) for name, step in steps.items()}
    return {name: args.windows / value for name, value in median_seconds(sides, args.rounds, device).items()}


def loop_rates(
    data: dict[str, Batches], steps: dict[str, Step], utterances: int, args: argparse.Namespace
) -> dict[str, float]:
    """Utterances a second of reading a batch and making a step of it, one after the other."""

    def train(batches: Batches, step: Step) -> None:
        trained = 0
        for batch in batches():
            step(batch)
            trained += count(batch)
        assert trained == utterances

    sides = {name: lambda batches=data[name], step=step: train(batches, step) for name, step in steps.items()}
    seconds = median_seconds(sides, args.rounds, torch.device(args.device))
    return {name: utterances / value for name, value in seconds.items()}


def report(title: str, rates: dict[str, float]) -> None:
    ratio = f", {rates['ours'] / rates['official']:.2f}x" if "official" in rates else ""
    print(f"{title}: " + ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items()) + ratio, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", type=Path, help="checkout of the official repository")
    parser.add_argument("--speech", type=Path, default=SPEECH, help="folder of recordings")
    parser.add_argument("--utterances", type=int, default=64, help="of them that the data is made of")
    parser.add_argument("--windows", type=int, default=4, help="in the batch of a step, one of each utterance")
    parser.add_argument("--size", choices=["released", "tiny", "smallest"], default="released", help="of the model")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["data", "step", "loop"])
    args = parser.parse_args()
    if args.upstream:
        import official_vocoder

        official_vocoder.import_official(args.upstream)
    device = torch.device(args.device)
    if device.type == "cpu":
        keep_freed_memory()  # as the trainer does; both sides get it here
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    print(f"{processor or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, float32")

    config = sizes_of(args.size)
    steps = make_steps(config, args) if args.only != "data" else {}
    if args.only in (None, "step"):
        report(f"step, {args.size} size, windows/s", step_rates(steps, config, args))
    if args.only == "step":
        return
    files = sorted(args.speech.rglob("*.wav"))[: args.utterances]
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(files, Path(folder) / "corpus", args)
        if args.only in (None, "data"):
            report("data, utterances/s", data_rates(data, len(files), args))
        if args.only in (None, "loop"):
            report(f"loop, {args.size} size, utterances/s", loop_rates(data, steps, len(files), args))


if __name__ == "__main__":
    main()
