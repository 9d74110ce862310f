"""Speech as judges hear it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.typing import NDArray

from cosyflow import storage
from cosyflow.audio.features import FEATURE_SAMPLE_RATE
from cosyflow.audio.fitness import Limits, measure
from cosyflow.audio.speech import load_speech
from cosyflow.errors import AudioError, CosyFlowError

RATE = FEATURE_SAMPLE_RATE
"""Hz; every judge takes it."""
SHORTEST = 0.1
"""Seconds; what is shorter is empty."""
LONGEST_HEARD = 60.0
"""Seconds of speech without an end that are judged."""


@dataclass(frozen=True)
class Sound:
    """A recording, or what a model spoke: float32 [samples] at 16 kHz, in [-1, 1]."""

    uri: str
    samples: NDArray[np.float32]

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE

    @property
    def is_empty(self) -> bool:
        return self.seconds < SHORTEST

    @property
    def is_silent(self) -> bool:
        """No frame of it is as loud as quiet speech."""
        measured = measure(self.samples[:, None], RATE)
        return measured.is_silent or measured.level < Limits().min_level

    @property
    def heard(self) -> NDArray[np.float32]:
        """What judges are given."""
        return self.samples[: round(LONGEST_HEARD * RATE)]


def load_sound(uri: str) -> Sound:
    """Reads audio of any rate and any number of channels. Raises AudioError when it cannot be decoded."""
    try:
        return Sound(uri, load_speech(uri, RATE).numpy())
    except AudioError:
        if not _has_no_samples(uri):
            raise
        return Sound(uri, np.zeros(0, np.float32))


def _has_no_samples(uri: str) -> bool:
    """A model may speak nothing at all, which is a sound file, and no use as speech."""
    try:
        with storage.open_read(uri) as stream, soundfile.SoundFile(stream) as file:
            return bool(file.frames == 0)
    except (CosyFlowError, OSError, soundfile.LibsndfileError):
        return False
