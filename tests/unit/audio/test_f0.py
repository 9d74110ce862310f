"""f0: both of WORLD's methods find known pitches at mel frames, and no voice in silence."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import pyworld
import torch

from cosyflow.audio.f0 import dio_f0, harvest_f0

RATE, HOP = 24000, 480
OPEN_VOWEL = ((700, 80), (1200, 100), (2600, 150))  # formants and their bandwidths in Hz
CLOSE_VOWEL = ((300, 60), (2300, 120), (3000, 150))

Method = Callable[[torch.Tensor, int, int], np.ndarray]
both_methods = pytest.mark.parametrize("measure", [harvest_f0, dio_f0], ids=["harvest", "fast"])


def voice(f0: np.ndarray, rate: int) -> torch.Tensor:
    """Ten falling harmonics of a fundamental given in Hz at samples."""
    phase = np.cumsum(f0) / rate * 2 * np.pi
    return torch.from_numpy(sum(np.sin(k * phase) / k for k in range(1, 11)) * 0.1).float()


def vowel(f0: np.ndarray, formants: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Harmonics up to 4 kHz of a falling source, as loud as the formants make them: [samples] at RATE, peak 0.5."""
    phase = np.cumsum(f0) / RATE * 2 * np.pi
    signal = np.zeros(len(f0))
    for k in range(1, int(4000 / f0.min()) + 1):
        hertz = k * f0
        gain = sum(1 / (1 + ((hertz - centre) / width) ** 2) for centre, width in formants)
        signal += np.where(hertz < 4000, gain / k, 0) * np.sin(k * phase)
    return signal * (0.5 / np.abs(signal).max())


@both_methods
@pytest.mark.parametrize(("rate", "hop"), [(24000, 480), (22050, 256)])
@pytest.mark.parametrize("pitch", [85.0, 140.0, 260.0, 420.0])
def test_steady_pitch(measure: Method, pitch: float, rate: int, hop: int) -> None:
    f0 = measure(voice(np.full(rate, pitch), rate), rate, hop)
    assert len(f0) == rate // hop
    assert f0[2:-2] == pytest.approx(pitch, rel=0.01)


@pytest.mark.medium
@both_methods
@pytest.mark.parametrize("formants", [OPEN_VOWEL, CLOSE_VOWEL], ids=["open", "close"])
@pytest.mark.parametrize("ends", [(90.0, 140.0), (130.0, 100.0), (180.0, 300.0), (380.0, 240.0)])
def test_gliding_vowels_between_breaths(
    measure: Method, ends: tuple[float, float], formants: tuple[tuple[int, int], ...]
) -> None:
    """A vowel of a second with a breath of half a second before and after it."""
    glide = np.linspace(*ends, RATE)
    signal = np.pad(vowel(glide, formants), RATE // 2)
    signal += np.random.default_rng(0).normal(size=len(signal)) * 0.003
    f0 = measure(torch.from_numpy(signal).float(), RATE, HOP)

    breath, middles = RATE // 2 // HOP, glide[HOP // 2 :: HOP]
    within = f0[breath : breath + len(middles)]
    np.testing.assert_allclose(within[3:-3], middles[3:-3], rtol=0.03)


@both_methods
@pytest.mark.parametrize("samples", [0, 100, HOP, RATE])
def test_silence_has_no_voice(measure: Method, samples: int) -> None:
    f0 = measure(torch.zeros(samples), RATE, HOP)
    assert f0.tolist() == [0.0] * (samples // HOP)


def test_where_harvest_finds_next_to_nothing_dio_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    steady = voice(np.full(RATE, 200.0), RATE)
    world = pyworld.harvest
    monkeypatch.setattr(pyworld, "harvest", lambda *args, **kwargs: [part * 0 for part in world(*args, **kwargs)])
    assert harvest_f0(steady, RATE, HOP)[3:-3] == pytest.approx(200.0, rel=0.01)
