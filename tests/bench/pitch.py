"""How WORLD's two methods measure f0 of speech whose f0 is known, and how long they take.

    OMP_NUM_THREADS=1 python tests/bench/pitch.py SPEECH_DIR [--every 2] [--seconds 5]

Known is the f0 of speech that WORLD itself says again in another pitch: the contour, the spectral envelope and the
noise of a recording, all taken by WORLD, the contour times a factor from 0.8 to 1.25 that a seed draws. A frame has no
voice where Harvest finds none or the lowest band is noise. Speech that is made by WORLD suits WORLD's methods, so the
figures compare these two, and say little of other libraries.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from time import process_time

import numpy as np
import pyworld
import torch

from cosyflow.audio.f0 import dio_f0, harvest_f0
from cosyflow.audio.speech import load_speech

RATE, HOP = 24000, 480
PERIOD = 5.0  # milliseconds


def say_again(recording: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """A recording (float64 [samples]) in another pitch, and its f0 in Hz in the middles of frames: float64 [frames]."""
    f0, times = pyworld.harvest(recording, RATE, frame_period=PERIOD)
    f0 = pyworld.stonemask(recording, f0, times, RATE)
    envelope = pyworld.cheaptrick(recording, f0, times, RATE)
    noise = pyworld.d4c(recording, f0, times, RATE)
    voiced = (f0 > 0) & (noise[:, 0] < 0.5)
    f0 = np.where(voiced, f0 * factor, 0.0)
    noise[~voiced] = 1.0
    said = pyworld.synthesize(f0, envelope, noise, RATE, frame_period=PERIOD)
    middles = (np.arange(len(said) // HOP) + 0.5) * HOP / RATE
    nearest = (middles * 1000 / PERIOD).round().astype(int).clip(max=len(f0) - 1)
    return said / max(1.0, np.abs(said).max()), f0[nearest]


def figures(measured: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """Shares of frames: missed voice, voice where there is none, and of those voiced in both, over 20 % apart."""
    both = (measured > 0) & (known > 0)
    apart = np.abs(measured[both] / known[both] - 1)
    return {
        "missed": np.mean((measured == 0) & (known > 0)),
        "invented": np.mean((measured > 0) & (known == 0)),
        "gross errors": np.mean(apart > 0.2),
        "median error, cents": np.median(1200 * np.log2(1 + apart[apart <= 0.2])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", type=Path, help="folder of recordings")
    parser.add_argument("--every", type=int, default=2, help="take one of so many files")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted(args.speech.rglob("*.wav"))[:: args.every]
    random = np.random.default_rng(0)
    end = int(args.seconds * RATE)
    spoken = [
        say_again(load_speech(str(file), RATE)[:end].double().numpy(), random.uniform(0.8, 1.25)) for file in files
    ]
    seconds = sum(len(said) for said, _ in spoken) / RATE
    known = np.concatenate([f0 for _, f0 in spoken])
    print(f"{len(files)} recordings, {seconds:.0f} s, {np.mean(known > 0):.1%} of the frames voiced")
    methods: dict[str, Callable[[torch.Tensor, int, int], np.ndarray]] = {"harvest": harvest_f0, "fast": dio_f0}
    for name, method in methods.items():
        start = process_time()
        measured = np.concatenate([method(torch.from_numpy(said).float(), RATE, HOP) for said, _ in spoken])
        spent = process_time() - start
        values = "  ".join(f"{key} {value:.4f}" for key, value in figures(measured, known).items())
        print(f"{name}: {spent / seconds:.4f} s a second of speech  {values}")


if __name__ == "__main__":
    main()
