"""Judges that compare voices by the cosine of two vectors: those of CAM++, or d-vectors (Wan et al., 2018)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from cosyflow.audio.features import fbank, slaney_filters
from cosyflow.errors import CosyFlowError
from cosyflow.evaluation.sound import RATE, Sound
from cosyflow.extract.model import SPEAKER, ModelFile, OnnxModel, RunTime

Vector = NDArray[np.float32]
CHANNELS, WINDOW, HOP, SIZE = 40, 400, 160, 256
PART_FRAMES, STEP_FRAMES = 160, 77
"""A d-vector is the mean of those of parts of 1.6 s, 1.3 of them a second."""
LEAST_PART = 0.75
"""Share of the last part that must be there."""
LOUDNESS = -30.0
"""dB of full scale, to which quieter speech is raised."""


class Voices:
    """Compares the voice of a sound with that of its prompt, whose vector is kept."""

    def __init__(self, embed: Callable[[Sound], Vector]) -> None:
        self._embed = embed
        self._prompts: dict[str, Vector] = {}

    def hear(self, sound: Sound, prompt: Sound) -> float:
        one = self._embed(sound)
        if prompt.uri not in self._prompts:
            self._prompts[prompt.uri] = self._embed(prompt)
        other = self._prompts[prompt.uri]
        return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-9))


def campplus(file: ModelFile) -> Voices:
    """Voices by CAM++ or a model of its signature. Raises CosyFlowError for a stand-in, which knows no voices."""
    model = OnnxModel.load(file, SPEAKER)
    if model.is_stand_in:
        raise CosyFlowError(f"{file.name}: a stand-in, which knows no voices; name the released model")

    def embed(sound: Sound) -> Vector:
        features = fbank(torch.from_numpy(sound.heard))
        features = features - features.mean(dim=0, keepdim=True)
        vector: Vector = model.run(features[None].numpy(), run_time=RunTime()).reshape(-1)
        return vector

    return Voices(embed)


def dvectors(path: str) -> Voices:
    """Voices by d-vectors with the weights of Resemblyzer."""
    encoder = DVectorEncoder()
    encoder.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model_state"], strict=False)
    encoder.eval()

    def embed(sound: Sound) -> Vector:
        with torch.inference_mode():
            vector: Vector = encoder(_parts(sound.heard)).mean(dim=0).numpy()
        return vector

    return Voices(embed)


class DVectorEncoder(nn.Module):
    """Three LSTMs over mel frames [B, T, 40], whose last state becomes a vector of length 1: [B, 256]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(CHANNELS, SIZE, 3, batch_first=True)
        self.linear = nn.Linear(SIZE, SIZE)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = self.lstm(mel)
        return F.normalize(F.relu(self.linear(hidden[-1])), dim=1)


def _parts(samples: Vector) -> torch.Tensor:
    """Mel frames of the parts of a waveform: [parts, 160, 40]."""
    waveform = torch.from_numpy(samples)
    level = 10 * torch.log10(waveform.square().mean().clamp(min=1e-10))
    if level < LOUDNESS:
        waveform = waveform * 10 ** ((LOUDNESS - level) / 20)
    covered = PART_FRAMES * HOP
    starts = [0]
    while len(samples) - (starts[-1] + STEP_FRAMES * HOP) >= LEAST_PART * covered:
        starts.append(starts[-1] + STEP_FRAMES * HOP)
    waveform = F.pad(waveform, (0, max(0, starts[-1] + covered - len(samples))))
    spectrum = torch.stft(
        waveform, WINDOW, HOP, window=torch.hann_window(WINDOW), pad_mode="constant", return_complex=True
    )
    filters = slaney_filters(RATE, WINDOW, CHANNELS, 0.0, None, waveform.device)
    mel = (filters @ spectrum.abs().square()).T  # no logarithm: that is how the model was trained
    return torch.stack([mel[start // HOP : start // HOP + PART_FRAMES] for start in starts])
