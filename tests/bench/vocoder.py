"""How fast batches for the vocoder are read, with f0 from the shards and with f0 by Harvest for each window.

    python tests/bench/vocoder.py [--speech DIR] [--utterances 64] [--epochs 3]

The second is what the official data path does in its loop, where Harvest takes nearly all of the time; it was measured
at 6.5 utterances a second for a worker with the official code. One process, one thread; prints a table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from cosyflow.audio.f0 import harvest_f0
from cosyflow.config.load import load_config
from cosyflow.dataset.index import build_index
from cosyflow.text.tokenizer import build_tokenizer
from cosyflow.training.planned_data import LoaderSettings
from cosyflow.training.ranks import Ranks
from cosyflow.training.vocoder_data import VocoderData
from tests.local.speech_corpus import SPEECH, make_speech_corpus


def measure(data: VocoderData, epochs: int, with_each: Callable[[torch.Tensor], object]) -> float:
    """Utterances a second."""
    list(data.batches(0, 0))  # the first reading of the shards
    count = 0
    start = time.perf_counter()
    for epoch in range(1, epochs + 1):
        for batch in data.batches(epoch, 0):
            if batch is not None:
                count += len(batch.utterances)
                for waveform in batch.waveform:
                    with_each(waveform)
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speech", type=Path, default=SPEECH, help="folder of recordings")
    parser.add_argument("--utterances", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted(args.speech.rglob("*.wav"))[: args.utterances]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        corpus = make_speech_corpus(Path(folder) / "corpus", "cosyvoice2", files, f0="fast")
        made = len(files) / (time.perf_counter() - start)
        recipe = load_config(corpus.recipe)
        index = build_index(corpus.data_list, build_tokenizer(recipe.version, corpus.tokenizer))
        ranks = Ranks(0, 1, torch.device("cpu"))
        data = VocoderData(index, index, recipe, recipe.train_conf_gan, ranks, LoaderSettings())
        stored = measure(data, args.epochs, lambda waveform: None)
        in_loop = measure(data, 1, lambda waveform: harvest_f0(waveform, recipe.sample_rate, recipe.mel.hop_size))
    print("utterances a second, one process")
    print(f"  parquet stage with --f0 fast   {made:8.1f}")
    print(f"  batches, f0 from the shards    {stored:8.1f}")
    print(f"  batches, f0 by Harvest         {in_loop:8.1f}")
    print(f"  ratio                          {stored / in_loop:8.1f}")


if __name__ == "__main__":
    main()
