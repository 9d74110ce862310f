"""How long a training stands still for a checkpoint, and how long writing it takes meanwhile.

    python tests/bench/saving.py [--size mid|full] [--tokens 8000] [--updates 3] [--folder DIR|s3://BUCKET/PREFIX]

The language model of CosyVoice 2 in a size of `llm.py`, by the training's own updater, engine and writer. One row is
of a checkpoint that is written in the background, as a training writes it, one of the same where the loop waits for it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from content import processor
from llm import SIZES, packs, utterances

from cosyflow import storage
from cosyflow.checkpoint.background import BackgroundWriter
from cosyflow.checkpoint.state import Position
from cosyflow.checkpoint.writer import CheckpointWriter
from cosyflow.config.llm import CosyVoice2LMConfig
from cosyflow.config.training import TrainConf
from cosyflow.models.llm.speech_lm import SpeechLM
from cosyflow.training.engine.ddp import TorchDDP
from cosyflow.training.language_model import LanguageModelling
from cosyflow.training.loop import Updater
from cosyflow.training.ranks import Ranks

UPDATES_BETWEEN = 100
"""Between two checkpoints, of which the share is told."""


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(size: str, tokens: int, updates: int, folder: str) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = CosyVoice2LMConfig(qwen2=SIZES[size], compute_dtype="bfloat16" if device.type == "cuda" else "float32")
    batches = packs(utterances(40 * (updates + 2), config.qwen2.vocab_size), config, tokens)
    torch.manual_seed(0)
    engine = TorchDDP(Ranks(0, 1, device))
    objective = LanguageModelling(SpeechLM(config)).to(device).train()
    updater = Updater(objective, TrainConf(tokens_per_step=tokens), engine)
    writer = CheckpointWriter(folder, {}, keep_last=1, keep_best=1)
    place = Position()

    def update() -> None:
        updater.update([batches[place.update % len(batches)]], place.update)
        place.update += 1
        place.batch += 1

    def several() -> None:
        for _ in range(updates):
            update()
        updater.rest()

    update()  # warms up, and makes the optimizer's state
    each = seconds_of(several) / updates
    with BackgroundWriter(writer, print) as checkpoints:
        stall = seconds_of(lambda: checkpoints.save(engine.save(objective.model), place, "", {}))
        meanwhile = seconds_of(several) / updates
    whole = seconds_of(lambda: writer.save(engine.save(objective.model), place, "", {}))
    written = sum(file.size for file in storage.list_files(folder) if f"step_{place.update}" in file.path)
    print(f"an update {each:.2f} s, while a checkpoint is written {meanwhile:.2f} s; it has {written / 2**20:.0f} MiB")
    for label, seconds in (("in the background", stall), ("the loop waits", whole)):
        share = seconds / (UPDATES_BETWEEN * each)
        print(f"{label}: {seconds:.2f} s, {share:.2%} of the time at one every {UPDATES_BETWEEN} updates")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="full" if torch.cuda.is_available() else "mid")
    parser.add_argument("--tokens", type=int, default=8000, help="positions of an update")
    parser.add_argument("--updates", type=int, default=3, help="that are timed")
    parser.add_argument("--folder", help="of the checkpoints; by default a temporary one")
    args = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    print(f"{device}, torch {torch.__version__}, {args.size} size")
    with tempfile.TemporaryDirectory() as temporary:
        measure(args.size, args.tokens, args.updates, args.folder or temporary)


if __name__ == "__main__":
    main()
