"""What cannot be learnt from is measured: silence, cancelling channels, clipping, offsets and levels."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosyflow.audio.fitness import Limits, measure

RATE = 24_000
SPEECH = Path(os.environ.get("COSYFLOW_SPEECH", "../shared/speech"))


def speech_like(seconds: float = 1.0, loudness: float = 0.3) -> np.ndarray:
    """Syllables of a buzzing tone with pauses between them: [samples, 1]."""
    time = np.arange(round(seconds * RATE)) / RATE
    voice = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 8))
    return (loudness * voice * np.clip(np.sin(8 * time), 0, 1))[:, None].astype(np.float32)


def why(samples: np.ndarray, limits: Limits | None = None) -> str | None:
    return measure(samples.astype(np.float32), RATE).why_unfit(limits or Limits())


FIT: dict[str, Callable[[], np.ndarray]] = {
    "speech": speech_like,
    "quiet speech": lambda: speech_like(loudness=0.01),
    "two equal channels": lambda: np.tile(speech_like(), 2),
    "one silent channel of two": lambda: np.hstack([speech_like(), np.zeros((RATE, 1))]),
    "one word in a long pause": lambda: np.vstack([np.zeros((2 * RATE, 1)), speech_like()]),
    "a pure tone": lambda: 0.1 * np.sin(np.arange(RATE) / 17)[:, None],
}
UNFIT: dict[str, tuple[Callable[[], np.ndarray], str]] = {
    "zeros": (lambda: np.zeros((RATE, 1)), "silent: "),
    "zeros in two channels": (lambda: np.zeros((RATE, 2)), "silent: "),
    "a constant": (lambda: np.full((RATE, 1), 0.5), "silent: "),
    "one sample": (lambda: np.full((1, 1), 0.5), "silent: "),
    "antiphase": (lambda: np.hstack([speech_like(), -speech_like()]), "channels cancel each other"),
    "nearly antiphase": (lambda: np.hstack([speech_like(), -0.95 * speech_like()]), "channels cancel each other"),
    "noise of the last bit": (lambda: np.random.default_rng(0).integers(-1, 2, (RATE, 1)) / 32768, "silent: "),
    "quiet noise": (
        lambda: np.random.default_rng(0).integers(-40, 41, (RATE, 1)) / 32768,
        "too quiet: ",
    ),
    "clipped": (lambda: np.clip(4 * speech_like(), -1, 1), "clipped: "),
    "clipped, then made quieter": (lambda: 0.3 * np.clip(4 * speech_like(), -1, 1), "clipped: "),
    "off centre": (lambda: speech_like(loudness=0.1) + 0.2, "DC offset: 0.2"),
}


@pytest.mark.parametrize("case", FIT)
def test_speech_is_fit(case: str) -> None:
    assert why(FIT[case]()) is None


@pytest.mark.parametrize("case", UNFIT)
def test_what_is_unfit_is_told_with_its_measure(case: str) -> None:
    samples, reason = UNFIT[case]
    assert reason in (why(samples()) or "")


def test_limits_can_be_set() -> None:
    clipped = np.clip(4 * speech_like(), -1, 1)
    assert why(clipped, Limits(max_clipped=1.0)) is None
    assert why(speech_like(loudness=0.01), Limits(min_level=-20)) is not None
    assert why(speech_like(loudness=0.1) + 0.2, Limits(max_dc=0.5)) is None
    assert why(np.hstack([speech_like(), -0.8 * speech_like()]), Limits(max_cancelled=10)) is not None


def test_real_recordings_are_far_from_the_limits() -> None:
    files = sorted(SPEECH.rglob("*.wav"))
    if not files:
        pytest.skip(f"{SPEECH} has no recordings")
    strict = Limits(min_level=-40, max_clipped=0.001, max_dc=0.005)
    for file in files:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
        assert measure(samples, rate).why_unfit(strict) is None, file
