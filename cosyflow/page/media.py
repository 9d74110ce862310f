"""Speech within a page: a player, and a picture of its mel spectrogram."""

from __future__ import annotations

import base64
import io
from xml.etree.ElementTree import Element

import numpy as np
import soundfile
import torch
from PIL import Image

from cosyflow.audio.features import MelSettings, mel_spectrogram
from cosyflow.audio.speech import load_speech
from cosyflow.errors import AudioError
from cosyflow.page.elements import element

RATE = 24000
"""Hz; MP3 has it, and every family's speech fits into it."""
LONGEST = 20.0
"""Seconds that are played."""
COMPRESSION = 0.7
"""Of MP3, from 0 to 1; about 40 kbit/s for one voice."""
MEL = MelSettings(sample_rate=RATE, n_fft=1024, hop_size=240, win_size=1024, num_mels=80, fmin=0.0, fmax=12000.0)
WIDEST = 500
"""Frames of a picture; more are averaged."""
FLOOR, CEILING = -9.0, 1.0
"""Natural logarithms of the mel spectrogram that are black and white."""
_COLOURS = np.array([(0, 0, 8), (60, 15, 110), (180, 50, 95), (250, 140, 40), (255, 250, 190)], np.float64)


class UnplayableError(AudioError):
    """A recording that cannot be played, with the reason."""


def player(uri: str) -> tuple[Element, Element, float]:
    """Controls that play a recording, its picture, and its length in seconds.

    Raises:
        UnplayableError: it cannot be read, or holds nothing.
    """
    try:
        samples = load_speech(uri, RATE)
    except AudioError as error:
        raise UnplayableError(str(error)) from error
    if not len(samples):
        raise UnplayableError(f"{uri}: holds no samples")
    heard = samples[: round(LONGEST * RATE)]
    audio = element("audio", controls="", preload="metadata")
    audio.set("src", _embedded("audio/mpeg", _mp3(heard.numpy())))
    return audio, _picture(heard), len(samples) / RATE


def _embedded(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _mp3(samples: np.ndarray) -> bytes:
    """MP3 of one channel; the same samples give the same bytes, which those of Ogg do not."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", RATE, 1, format="MP3", compression_level=COMPRESSION) as file:
        file.write(samples)
    return buffer.getvalue()


def _picture(samples: torch.Tensor) -> Element:
    """A mel spectrogram, low frequencies below, as PNG."""
    try:
        mel = mel_spectrogram(samples, MEL).numpy()
    except AudioError:  # shorter than a window
        return element("p", "too short for a picture", class_="missing")
    if mel.shape[1] > WIDEST:
        edges = np.linspace(0, mel.shape[1], WIDEST + 1).astype(np.int64)[:-1]
        mel = np.add.reduceat(mel, edges, axis=1) / np.diff([*edges, mel.shape[1]])
    levels = np.clip((mel[::-1] - FLOOR) / (CEILING - FLOOR), 0, 1)
    image = Image.fromarray((levels * 63).round().astype(np.uint8), "P")
    image.putpalette(_palette(64))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    picture = element("img", alt="mel spectrogram", width=str(image.width), height=str(image.height))
    picture.set("src", _embedded("image/png", buffer.getvalue()))
    return picture


def _palette(count: int) -> bytes:
    places = np.linspace(0, len(_COLOURS) - 1, count)
    channels = [np.interp(places, range(len(_COLOURS)), _COLOURS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8).tobytes()
