"""f0: the fast method finds known pitches and agrees with Harvest on recorded speech."""

from __future__ import annotations

from pathlib import Path
from time import process_time

import numpy as np
import pytest
import torch

from cosyflow.audio.f0 import fast_f0, import_world
from cosyflow.audio.speech import load_speech

SPEECH = Path(__file__).resolve().parents[3].parent / "shared" / "speech" / "LibriTTS-mini"
RATE, HOP = 24000, 480
OPEN_VOWEL = ((700, 80), (1200, 100), (2600, 150))  # formants and their bandwidths in Hz
CLOSE_VOWEL = ((300, 60), (2300, 120), (3000, 150))


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


def spoken(f0: np.ndarray, formants: tuple[tuple[int, int], ...], noise: float) -> torch.Tensor:
    """A vowel with a breath of half a second before and after it, in noise of a given deviation."""
    breath = np.zeros(RATE // 2)
    signal = np.concatenate([breath, vowel(f0, formants), breath])
    signal += np.random.default_rng(0).normal(size=len(signal)) * noise
    return torch.from_numpy(signal).float()


@pytest.mark.parametrize(("rate", "hop"), [(24000, 480), (22050, 256)])
@pytest.mark.parametrize("pitch", [85.0, 140.0, 260.0, 420.0])
def test_steady_pitch(pitch, rate, hop):
    f0 = fast_f0(voice(np.full(rate, pitch), rate), rate, hop)
    assert len(f0) == rate // hop
    assert f0[2:-2] == pytest.approx(pitch, rel=0.01)


def test_gliding_pitch():
    glide = np.linspace(110, 230, RATE)
    f0 = fast_f0(voice(glide, RATE), RATE, HOP)
    middles = glide[HOP // 2 :: HOP]
    np.testing.assert_allclose(f0[3:-3], middles[3:-3], rtol=0.02)


@pytest.mark.parametrize("noise", [0.0, 0.003, 0.02])
@pytest.mark.parametrize("formants", [OPEN_VOWEL, CLOSE_VOWEL], ids=["open", "close"])
@pytest.mark.parametrize("ends", [(90.0, 140.0), (130.0, 100.0), (180.0, 300.0), (380.0, 240.0)])
def test_vowels_in_noise(ends, formants, noise):
    glide = np.linspace(*ends, RATE)
    f0 = fast_f0(spoken(glide, formants, noise), RATE, HOP)
    breath, middles = RATE // 2 // HOP, glide[HOP // 2 :: HOP]
    within = f0[breath : breath + len(middles)]
    np.testing.assert_allclose(within[2:-2], middles[2:-2], rtol=0.03)
    outside = np.concatenate([f0[: breath - 2], f0[breath + len(middles) + 2 :]])
    assert np.mean(outside > 0) <= 0.1


@pytest.mark.parametrize("samples", [0, 100, 24000])
def test_no_voice_in_silence_and_noise(samples):
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(0)) * 0.1
    for waveform in (torch.zeros(samples), noise):
        f0 = fast_f0(waveform, RATE, HOP)
        assert len(f0) == samples // HOP
        assert np.count_nonzero(f0) <= 0.1 * len(f0)


def test_digital_silence_around_speech_voices_no_noise():
    """A frame of zeros is infinitely far below any noise, which must not pass for loud."""
    speech = spoken(np.linspace(120, 180, RATE), OPEN_VOWEL, 0.003)
    f0 = fast_f0(speech, RATE, HOP)
    padded = fast_f0(torch.cat([torch.zeros(RATE), speech, torch.zeros(RATE)]), RATE, HOP)
    around = padded[50:-50]
    assert np.mean((around > 0) == (f0 > 0)) > 0.9
    assert not padded[:48].any()


def world_f0(waveform: torch.Tensor, method: str) -> np.ndarray:
    """f0 of WORLD's method harvest or dio with StoneMask, in the middles of frames, where fast_f0 measures."""
    world = import_world()
    signal = waveform.double().numpy()
    f0, times = getattr(world, method)(signal, RATE, frame_period=500 * HOP / RATE)
    return world.stonemask(signal, f0, times, RATE)[1::2][: len(signal) // HOP]


def differs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Gross pitch errors: the two differ by more than 20 %."""
    return np.abs(one / np.where(other > 0, other, 1) - 1) > 0.2


def agreement(files: list[Path], seconds: float | None = None) -> dict[str, float]:
    """How far fast_f0 agrees with Harvest, with what WORLD's two methods agree on, and how much faster it is."""
    end = None if seconds is None else int(seconds * RATE)
    waveforms = [load_speech(str(file), RATE)[:end] for file in files]
    fast_f0(waveforms[0], RATE, HOP)  # makes windows and filters
    ours, harvest, dio, spent = [], [], [], np.zeros(2)
    for waveform in waveforms:
        begin = process_time()
        ours.append(fast_f0(waveform, RATE, HOP))
        between = process_time()
        harvest.append(world_f0(waveform, "harvest"))
        spent += between - begin, process_time() - between
        dio.append(world_f0(waveform, "dio"))
    f, h, d = (np.concatenate(values) for values in (ours, harvest, dio))
    both = (f > 0) & (h > 0)
    close = both & ~differs(f, h)
    certain = (h > 0) & (d > 0) & ~differs(d, h)
    figures = {
        "voicing": np.mean((f > 0) == (h > 0)),
        "gross errors": 1 - close.sum() / both.sum(),
        "correlation": np.corrcoef(np.log(f[close]), np.log(h[close]))[0, 1],
        "missed where certain": np.mean(f[certain] == 0),
        "gross errors where certain": differs(f, h)[both & certain].mean(),
        "correlation where certain": np.corrcoef(np.log(f[close & certain]), np.log(h[close & certain]))[0, 1],
        "times faster": spent[1] / spent[0],
    }
    print({name: round(float(value), 4) for name, value in figures.items()})
    return figures


def recorded_speech() -> list[Path]:
    pytest.importorskip("pyworld", reason="the extra harvest is not installed")
    files = sorted(SPEECH.rglob("*.wav"))
    if not files:
        pytest.skip(f"no recorded speech at {SPEECH}")
    return files


def test_agrees_with_harvest_on_some_recordings():
    """Certain is where Harvest and DIO, the other method of WORLD, differ by less than 20 %."""
    figures = agreement(recorded_speech()[::12], seconds=4)
    assert figures["voicing"] >= 0.87
    assert figures["gross errors"] <= 0.06
    assert figures["missed where certain"] <= 0.02
    assert figures["gross errors where certain"] <= 0.02
    assert figures["correlation where certain"] > 0.99
    assert figures["times faster"] >= 10


@pytest.mark.slow
def test_agrees_with_harvest_on_all_recordings():
    figures = agreement(recorded_speech())
    assert figures["voicing"] >= 0.88
    assert figures["gross errors"] <= 0.055
    assert figures["correlation"] > 0.99
    assert figures["missed where certain"] <= 0.02
    assert figures["gross errors where certain"] <= 0.01
    assert figures["correlation where certain"] > 0.99
    assert figures["times faster"] >= 10
