"""The vocoder's file: the generator without discriminators, with the keys that inference loads."""

from __future__ import annotations

from pathlib import Path

import torch

from cosyflow.checkpoint.official import load_official, save_official
from cosyflow.models.vocoder.hift import HiFTGenerator
from cosyflow.release.export.comparison import ExportedFile, Run, Tensors, random_tensor

VOCODER_FILE = "hift.pt"
FRAMES = range(16, 64)
SPEECH_LEVEL, SPEECH_SPREAD = -6.0, 2.0
"""Of the natural logarithms in a mel spectrogram of speech, roughly."""


def vocoder_files(trained: HiFTGenerator) -> list[ExportedFile]:
    """The file of the vocoder, which is in evaluation mode."""

    def write(path: Path) -> Run:
        save_official(trained, path)
        loaded = HiFTGenerator(trained.config)
        load_official(loaded, path)
        return _vocode(loaded)

    def inputs(frames: int) -> Tensors:
        bins = trained.config.in_channels
        return (SPEECH_LEVEL + SPEECH_SPREAD * random_tensor(frames, 1, bins, frames),)

    return [ExportedFile(VOCODER_FILE, write, _vocode(trained), inputs, FRAMES)]


def _vocode(generator: HiFTGenerator) -> Run:
    generator.eval()
    return lambda tensors: (generator.inference(*tensors, rng=torch.Generator().manual_seed(0)).waveform,)
