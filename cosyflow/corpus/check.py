"""Whether the audio of an utterance can be used: its header, its rate and, where that is wanted, its samples."""

from __future__ import annotations

from dataclasses import replace

from cosyflow.audio.fitness import Limits, measure
from cosyflow.audio.locator import Locator
from cosyflow.audio.opener import inspect_audio, read_samples
from cosyflow.errors import AudioError

MIN_SAMPLE_RATE = 16_000
MEASURED_SECONDS = 600


def check_audio(audio: str | bytes, name: str, limits: Limits | None) -> float:
    """The length of audio in seconds.

    Args:
        audio: a locator or the bytes of a file.
        name: what errors call it.
        limits: what its samples may be like; None reads the header only.

    Raises:
        AudioError: it cannot be used; the message is `NAME: KIND[: or , or ; and details]`.
    """
    info = inspect_audio(audio, name)
    if info.sample_rate < MIN_SAMPLE_RATE:
        raise AudioError(f"{name}: low sample rate: {info.sample_rate} Hz, at least {MIN_SAMPLE_RATE} Hz are needed")
    if limits is not None:
        samples, sample_rate = read_samples(_beginning(audio, info.seconds), name)
        if reason := measure(samples, sample_rate).why_unfit(limits):
            raise AudioError(f"{name}: {reason}")
    return info.seconds


def _beginning(audio: str | bytes, seconds: float) -> str | bytes:
    """The part of a long recording that is measured: all of it would not fit into memory several times."""
    if isinstance(audio, bytes) or seconds <= MEASURED_SECONDS:
        return audio
    whole = Locator.parse(audio)
    return str(replace(whole, end=whole.start + MEASURED_SECONDS))
