"""Speech within a page: a player, and a picture of its mel spectrogram."""

from __future__ import annotations

import base64
import io
from xml.etree.ElementTree import Element

import numpy as np
import soundfile
import torch

from cosyflow.audio.picture import RATE, as_png, mel_picture
from cosyflow.audio.speech import load_speech
from cosyflow.errors import AudioError, CosyFlowError
from cosyflow.page.elements import append, element, missing

LONGEST = 20.0
"""Seconds that are played."""
COMPRESSION = 0.7
"""Of MP3, from 0 to 1; about 40 kbit/s for one voice."""


class UnplayableError(AudioError):
    """A recording that cannot be played, with the reason."""


def playing(caption: str, uri: str) -> Element:
    """A figure with a recording's player and picture, or why it cannot be played."""
    figure = element("figure", element("figcaption", caption))
    try:
        audio, picture, seconds = player(uri)
    except CosyFlowError as error:
        append(figure, missing(f"It cannot be played: {error}"))
        return figure
    append(figure, audio, picture)
    if seconds > LONGEST:
        append(figure, element("p", f"The first {LONGEST:.0f} of {seconds:.1f} seconds."))
    return figure


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
    try:
        image = mel_picture(samples)
    except AudioError:  # shorter than a window
        return element("p", "too short for a picture", class_="missing")
    picture = element("img", alt="mel spectrogram", width=str(image.width), height=str(image.height))
    picture.set("src", _embedded("image/png", as_png(image)))
    return picture
