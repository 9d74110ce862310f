"""Judges that score how speech sounds, from 1 to 5: DNSMOS (Reddy et al., 2022), DistillMOS, and ONNX models."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from cosyflow.errors import CosyFlowError
from cosyflow.evaluation.sound import RATE, Sound
from cosyflow.extract.model import ModelFile, OnnxModel, RunTime, Signature

LOWEST, HIGHEST = 1.0, 5.0
WINDOW = round(9.01 * RATE)
OVERALL = np.polynomial.Polynomial([0.04602535, 1.11546468, -0.06766283])
"""From DNSMOS's third output to the scale of its listeners, by its authors' fit."""
PRIMARY = Signature("DNSMOS (waveform [B, 144160])", [[None, WINDOW]], ["float"])
WAVEFORM = Signature("a quality model of a waveform ([B, samples])", [[None, None]], ["float"])


class Dnsmos:
    """DNSMOS P.835's overall score: the mean over windows of 9 s, each a second after the one before."""

    def __init__(self, file: ModelFile) -> None:
        self._model = OnnxModel.load(file, PRIMARY)

    def hear(self, sound: Sound, prompt: Sound) -> float:
        windows = _windows(sound.heard)
        scores = [self._model.run(window[None], run_time=RunTime())[0] for window in windows]
        return _limited(float(OVERALL(np.array(scores)[:, 2]).mean()))


class OnnxQuality:
    """An ONNX model whose first output is one score for a waveform at 16 kHz of any length."""

    def __init__(self, file: ModelFile) -> None:
        self._model = OnnxModel.load(file, WAVEFORM)

    def hear(self, sound: Sound, prompt: Sound) -> float:
        output = self._model.run(sound.heard[None], run_time=RunTime())
        if output.size != 1:
            raise CosyFlowError(f"{self._model.file.name}: it gives {output.size} numbers, a quality model gives one")
        return float(output.reshape(()))


class DistillMos:
    """DistillMOS, a small model that learned from one of a thousand times its size."""

    def __init__(self, path: str) -> None:
        from distillmos import ConvTransformerSQAModel

        self._model: torch.nn.Module = ConvTransformerSQAModel(load_weights=False)
        weights = torch.load(path, map_location="cpu", weights_only=True)
        self._model.load_state_dict(weights["model"])
        self._model.eval()

    def hear(self, sound: Sound, prompt: Sound) -> float:
        with torch.inference_mode():
            return _limited(float(self._model(torch.from_numpy(sound.heard)[None]).mean()))


def _windows(samples: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Windows of 9.01 s; shorter speech is repeated until it fills one."""
    if len(samples) < WINDOW:
        samples = np.resize(samples, WINDOW)
    return [samples[start : start + WINDOW] for start in range(0, len(samples) - WINDOW + 1, RATE)]


def _limited(score: float) -> float:
    return min(max(score, LOWEST), HIGHEST)
