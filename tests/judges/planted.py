"""Candidates whose worth is known: real recordings as they are, or with one thing done to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from numpy.typing import NDArray

from cosyflow.evaluation.judges import QUALITY, SPEAKER
from cosyflow.evaluation.listing import Entry, make_list

RATE = 24000
SPEECH = Path(os.environ.get("COSYFLOW_SPEECH", Path(__file__).resolve().parents[3] / "shared" / "speech"))
"""A folder with the LibriTTS tree LibriTTS-mini."""
SUBSETS = ("train-clean-100", "dev-clean", "test-clean")

Wave = NDArray[np.float32]
Effect = Callable[[Wave, np.random.Generator], Wave]


@dataclass(frozen=True)
class Case:
    """A candidate, the champion that it meets ("" for none), what the gate must say, and of which metric."""

    name: str
    candidate: str
    champion: str
    outcome: str
    metric: str = ""
    """That must be found worse, missing or not reached."""
    without: str = ""
    """The role of a judge that is missing."""


FIRST = (
    Case("better", "recorded", "noisy", "promote"),
    Case("equal", "quieter", "recorded", "refuse"),
    Case("noisy", "noisy", "recorded", "refuse", "dnsmos"),
    Case("wrong text", "wrong_text", "recorded", "refuse", "wer"),
    Case("another speaker", "another_voice", "recorded", "refuse", "similarity"),
    Case("truncated", "truncated", "recorded", "refuse", "duration_ratio"),
    Case("silent", "silent", "recorded", "refuse", "failures"),
    Case("endless", "endless", "recorded", "refuse", "failures"),
    Case("one metric missing", "recorded", "noisy", "refuse", "quality", without=QUALITY),
    Case("clipped", "clipped", "recorded", "refuse", "quality"),
    Case("slow", "slow", "recorded", "refuse", "duration_ratio"),
    Case("the first", "recorded", "", "promote"),
)
SECOND = (
    Case("better than clipped", "recorded", "clipped", "promote"),
    Case("equal but for its seed", "dithered", "recorded", "refuse"),
    Case("hissing", "hissing", "recorded", "refuse", "dnsmos"),
    Case("empty", "empty", "recorded", "refuse", "failures"),
    Case("fast", "fast", "recorded", "refuse", "duration_ratio"),
    Case("words left out", "words_left_out", "recorded", "refuse", "wer"),
    Case("lower quality", "coarse", "recorded", "refuse", "quality"),
    Case("somebody else's recordings", "other_speakers", "recorded", "refuse", "similarity"),
    Case("no speaker judge", "recorded", "clipped", "refuse", "similarity", without=SPEAKER),
    Case("the first, and silent", "silent", "", "refuse", "failures"),
    Case("the first, in noise", "loud_noise", "", "refuse", "dnsmos"),
    Case("the first, and good", "recorded", "", "promote"),
)


def choose(folders: Sequence[str], seed: int, count: int) -> list[Entry]:
    """The list: each text has a recording, which is what a perfect candidate would speak."""
    return make_list(folders, seed, count)


def plant(kind: str, entries: Sequence[Entry], folder: Path, seed: int) -> list[str]:
    """Writes what a candidate of a kind speaks; returns the wav of each entry."""
    folder.mkdir()
    waves = [_read(entry.wav) for entry in entries]
    random = np.random.default_rng(seed)
    wavs = []
    for number, entry in enumerate(entries):
        if kind == "wrong_text":  # what the prompt says, in the right voice
            wave = _read(entry.prompt_wav)
        elif kind == "other_speakers":
            others = [each for each, other in enumerate(entries) if other.spk != entry.spk]
            wave = waves[int(random.choice(others))]
        elif kind in SOME:
            wave = SOME[kind](waves[number], random) if number % 4 == 0 else waves[number]
        else:
            wave = EVERY[kind](waves[number], random)
        wavs.append(str(folder / f"{number:03d}.wav"))
        soundfile.write(wavs[-1], wave, RATE, subtype="PCM_16")
    return wavs


def _read(wav: str) -> Wave:
    samples, rate = soundfile.read(wav, dtype="float32")
    assert rate == RATE
    return np.asarray(samples, dtype=np.float32)


def _with_noise(decibels: float) -> Effect:
    """White noise that is quieter than the speech by so many decibels."""

    def effect(wave: Wave, random: np.random.Generator) -> Wave:
        noise = random.normal(size=len(wave)).astype(np.float32)
        return wave + noise * float(np.sqrt(np.mean(wave**2)) * 10 ** (-decibels / 20))

    return effect


def _stretched(wave: Wave, factor: float) -> Wave:
    """Longer by a factor at the same pitch, by a phase vocoder."""
    spectrum = torch.stft(torch.from_numpy(wave), 1024, 256, window=torch.hann_window(1024), return_complex=True)
    stretch = torchaudio.transforms.TimeStretch(256, 513, 1 / factor)
    stretched = stretch(spectrum[None])[0]
    found: Wave = torch.istft(stretched, 1024, 256, window=torch.hann_window(1024)).numpy()
    return found


def _higher(wave: Wave, _: np.random.Generator) -> Wave:
    """As long, with pitch and formants a quarter higher: the voice of somebody smaller."""
    longer = torch.from_numpy(_stretched(wave, 5 / 4))
    found: Wave = torchaudio.functional.resample(longer, 5, 4).numpy()
    return found


def _left_out(wave: Wave, _: np.random.Generator) -> Wave:
    """Without its middle third."""
    return np.concatenate([wave[: len(wave) // 3], wave[2 * len(wave) // 3 :]])


EVERY: dict[str, Effect] = {
    "recorded": lambda wave, _: wave,
    "quieter": lambda wave, _: 0.9 * wave,
    "dithered": _with_noise(70),
    "noisy": _with_noise(15),
    "hissing": _with_noise(20),
    "loud_noise": _with_noise(0),
    "another_voice": _higher,
    "truncated": lambda wave, _: wave[: len(wave) // 2],
    "clipped": lambda wave, _: np.clip(wave, *np.quantile(wave, [0.15, 0.85])),
    "coarse": lambda wave, _: np.round(wave * 24) / 24,
    "slow": lambda wave, _: _stretched(wave, 1.4),
    "fast": lambda wave, _: _stretched(wave, 0.7),
    "words_left_out": _left_out,
}
SOME: dict[str, Effect] = {
    "silent": lambda wave, _: np.zeros_like(wave),
    "endless": lambda wave, _: np.tile(wave, 5),
    "empty": lambda wave, _: wave[:0],
}
"""Of every fourth utterance; the others are as recorded."""
