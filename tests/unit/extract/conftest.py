"""A small corpus of generated sounds and the stand-in models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosyflow.standins.onnx_models import write_onnx_models

SoundWriter = Callable[..., Path]
CorpusWriter = Callable[[Mapping[str, Path]], Path]


def write_sound(path: Path, seed: int, seconds: float, sample_rate: int = 24000, channels: int = 1) -> Path:
    """Noise through a slowly moving filter: every seed sounds different, and every moment."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, 0.1, (int(sample_rate * seconds), channels))
    cut = np.convolve(random.uniform(0, 1, len(noise) // 2400 + 3), np.ones(3) / 3, mode="same").repeat(2400)
    smooth = np.cumsum(noise, axis=0) / np.sqrt(np.arange(1, len(noise) + 1))[:, None]
    mixing = cut[: len(noise), None]
    soundfile.write(path, np.clip(mixing * noise + (1 - mixing) * smooth, -0.99, 0.99), sample_rate, subtype="PCM_16")
    return path


@pytest.fixture
def sound() -> SoundWriter:
    return write_sound


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    write_onnx_models(directory, seed=0)
    return directory


@pytest.fixture
def write_corpus(tmp_path: Path) -> CorpusWriter:
    """Makes a Kaldi folder of audio files by utterance; the speaker is what stands before the first "_"."""

    def write(wavs: Mapping[str, Path]) -> Path:
        folder = tmp_path / "corpus"
        folder.mkdir()
        (folder / "wav.scp").write_text("".join(f"{utt} {wav}\n" for utt, wav in wavs.items()))
        (folder / "text").write_text("".join(f"{utt} some words\n" for utt in wavs))
        (folder / "utt2spk").write_text("".join(f"{utt} {utt.split('_')[0]}\n" for utt in wavs))
        return folder

    return write


@pytest.fixture
def corpus(tmp_path: Path, write_corpus: CorpusWriter) -> Path:
    """Twelve utterances of three speakers; some are equally long."""
    seconds = [1.0, 0.8, 1.0, 0.53, 1.0, 0.8]
    names = [f"{speaker}_{number}" for number in range(4) for speaker in ("c", "a", "b")]
    wavs = {
        utt: write_sound(tmp_path / f"{utt} x.wav", seed, seconds[seed % len(seconds)])
        for seed, utt in enumerate(names)
    }
    return write_corpus(wavs)
