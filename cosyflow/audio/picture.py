"""Pictures of speech: its mel spectrogram as an image."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from cosyflow.audio.features import MelSettings, mel_spectrogram

RATE = 24000
"""Hz, of the samples that are shown."""
MEL = MelSettings(sample_rate=RATE, n_fft=1024, hop_size=240, win_size=1024, num_mels=80, fmin=0.0, fmax=12000.0)
WIDEST = 500
"""Frames of a picture; more are averaged."""
FLOOR, CEILING = -9.0, 1.0
"""Natural logarithms of the mel spectrogram that are black and white."""
SHADES = 64
_COLOURS = np.array([(0, 0, 8), (60, 15, 110), (180, 50, 95), (250, 140, 40), (255, 250, 190)], np.float64)


def mel_picture(samples: torch.Tensor) -> Image.Image:
    """The mel spectrogram of float32 [samples] at RATE, low frequencies below: a frame a column, a band a row.

    Raises:
        AudioError: the sound is shorter than a window.
    """
    mel = mel_spectrogram(samples, MEL).numpy()
    if mel.shape[1] > WIDEST:
        edges = np.linspace(0, mel.shape[1], WIDEST + 1).astype(np.int64)
        mel = np.add.reduceat(mel, edges[:-1], axis=1) / np.diff(edges)
    levels = np.clip((mel[::-1] - FLOOR) / (CEILING - FLOOR), 0, 1)
    image = Image.fromarray((levels * (SHADES - 1)).round().astype(np.uint8), "P")
    image.putpalette(_palette())
    return image


def as_png(image: Image.Image) -> bytes:
    """Equal images give equal bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _palette() -> bytes:
    places = np.linspace(0, len(_COLOURS) - 1, SHADES)
    channels = [np.interp(places, range(len(_COLOURS)), _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8).tobytes()
