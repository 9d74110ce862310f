"""Speed of training the CosyVoice 2 vocoder against the official code: its data, its step, and both together.

    python tests/bench/vocoder.py --upstream DIR [--speech DIR] [--only data|step] [--device cuda]

DIR is a checkout of the official repository with its Matcha-TTS submodule, in an environment that can import both. Both
sides read the same shards, in one process: the official path computes f0 by Harvest in its loop, ours reads what the
parquet stage stored. A step is both adversarial turns on the same windows with the released sizes. Sides take turns;
medians count. Without --upstream only ours is measured; `--only step` then needs torch and numpy alone.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cosyflow.config.training import GanTrainConf
from cosyflow.config.vocoder import HiFiGanConfig
from cosyflow.models.vocoder.gan import HiFiGan
from cosyflow.training.ranks import Ranks
from cosyflow.training.vocoder import AdversarialUpdater, VocoderObjective
from cosyflow.training.vocoder_data import WindowBatch

WINDOW_FRAMES = 52
"""The official window of 24,480 samples with its padding."""
SPEECH = Path(__file__).resolve().parents[3] / "shared" / "speech"


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


def data_rates(args: argparse.Namespace) -> dict[str, float]:
    """Utterances a second."""
    from cosyflow.config.load import load_config
    from cosyflow.dataset.index import build_index
    from cosyflow.text.tokenizer import build_tokenizer
    from cosyflow.training.planned_data import LoaderSettings
    from cosyflow.training.vocoder_data import VocoderData
    from tests.local.speech_corpus import make_speech_corpus

    files = sorted(args.speech.rglob("*.wav"))[: args.utterances]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        corpus = make_speech_corpus(Path(folder) / "corpus", "cosyvoice2", files, f0="fast")
        made = len(files) / (time.perf_counter() - start)
        print(f"parquet stage with --f0 fast, once: {made:.1f} utterances/s")
        recipe = load_config(corpus.recipe)
        index = build_index(corpus.data_list, build_tokenizer(recipe.version, corpus.tokenizer))
        ranks = Ranks(0, 1, torch.device("cpu"))
        data = VocoderData(index, index, recipe, recipe.train_conf_gan, ranks, LoaderSettings())
        epochs = iter(range(10**6))

        def read_ours() -> None:
            read = sum(len(batch.utterances) for batch in data.batches(next(epochs), 0) if batch is not None)
            assert read == len(files)

        sides: dict[str, Callable[[], object]] = {"ours": read_ours}
        if args.upstream:
            import official_vocoder

            shards = Path(corpus.data_list).read_text().split()
            config = HiFiGanConfig()

            def read_official() -> None:
                read = sum(len(batch["utts"]) for batch in official_vocoder.batches(shards, corpus.tokenizer, config))
                assert read == len(files)

            sides["official"] = read_official
        seconds = median_seconds(sides, args.rounds, ranks.device)
    return {name: len(files) / value for name, value in seconds.items()}


def step_rates(args: argparse.Namespace) -> dict[str, float]:
    """Windows a second."""
    device, config = torch.device(args.device), HiFiGanConfig()
    torch.manual_seed(0)
    samples = WINDOW_FRAMES * config.generator.samples_per_frame
    windows = WindowBatch(
        utterances=[str(number) for number in range(args.windows)],
        waveform=0.1 * torch.randn(args.windows, samples),
        mel=torch.randn(args.windows, config.generator.in_channels, WINDOW_FRAMES),
        f0=torch.full((args.windows, WINDOW_FRAMES), 200.0),
    ).to(device)
    updater = AdversarialUpdater(
        VocoderObjective(HiFiGan(config).to(device).train()), GanTrainConf(), Ranks(0, 1, device)
    )
    updates = iter(range(10**6))
    sides: dict[str, Callable[[], object]] = {"ours": lambda: updater.update([windows], next(updates), 2e-4, False)}
    if args.upstream:
        import official_vocoder

        sides["official"] = official_vocoder.build_step(config, windows.mel, windows.waveform, windows.f0, device)
    return {name: args.windows / value for name, value in median_seconds(sides, args.rounds, device).items()}


def report(title: str, rates: dict[str, float]) -> None:
    ratio = f", {rates['ours'] / rates['official']:.2f}x" if "official" in rates else ""
    print(f"{title}: " + ", ".join(f"{name} {rate:.2f}" for name, rate in rates.items()) + ratio, flush=True)


def in_turns(data: dict[str, float], step: dict[str, float]) -> dict[str, float]:
    """Utterances a second of a process that reads and steps one after the other, a window of each utterance."""
    return {name: 1 / (1 / data[name] + 1 / step[name]) for name in step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", type=Path, help="checkout of the official repository")
    parser.add_argument("--speech", type=Path, default=SPEECH, help="folder of recordings")
    parser.add_argument("--utterances", type=int, default=64, help="of them that the data is made of")
    parser.add_argument("--windows", type=int, default=4, help="in the batch of a step")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["data", "step"])
    args = parser.parse_args()
    if args.upstream:
        import official_vocoder

        official_vocoder.import_official(args.upstream)
    device = torch.device(args.device)
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    print(f"{processor or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, float32")
    data = data_rates(args) if args.only != "step" else {}
    if data:
        report("data, utterances/s", data)
    if args.only != "data":
        step = step_rates(args)
        report("step, windows/s", step)
        if data:
            both = in_turns(data, step)
            report("data and step in turns, utterances/s", both)
            if args.upstream:
                report("ours with its step, official data alone, utterances/s", data | {"ours": both["ours"]})


if __name__ == "__main__":
    main()
