"""Small corpora, and a way to see whether a folder is as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosyflow.cli import main


def write_wav(path: Path, seconds: float = 0.25, sample_rate: int = 24_000, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    soundfile.write(path, np.tile(0.1 * np.sin(1382 * time)[:, None], channels), sample_rate, subtype="PCM_16")


@pytest.fixture
def libritts(tmp_path: Path) -> Path:
    """A subset with four utterances of two speakers."""
    root = tmp_path / "source" / "dev-clean"
    for utt in ("84_1_000001_000000", "84_1_000002_000000", "84_2_000001_000000", "174_5_000001_000000"):
        speaker, chapter = utt.split("_")[:2]
        write_wav(root / speaker / chapter / f"{utt}.wav")
        (root / speaker / chapter / f"{utt}.normalized.txt").write_text(f"Sentence of {utt}.\n")
        (root / speaker / chapter / f"{utt}.original.txt").write_text(f"Sentence of {utt}.\n")
    return root


@pytest.fixture
def kaldi(tmp_path: Path) -> Path:
    """A Kaldi folder of one's own, with a relative path that has a space in it."""
    root = tmp_path / "own data"
    for name in ("a", "b"):
        write_wav(root / "my recordings" / f"{name}.wav")
    (root / "wav.scp").write_text(f"b {root}/my recordings/b.wav\na my recordings/a.wav\n")
    (root / "text").write_text("a Guten  Tag.\nb Grüß Gott.\n")
    (root / "utt2spk").write_text("a anna\nb bert\n")
    return root


def snapshot(directory: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with its content."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail and must leave a folder alone; returns its one line on standard error."""

    def run(*arguments: object, unchanged: Path) -> str:
        before = snapshot(unchanged)
        status = main([str(argument) for argument in arguments])
        error = capsys.readouterr().err
        assert status == 1
        assert error.count("\n") == 1, error
        assert error.startswith(f"cosyflow {arguments[0]}: error: ")
        assert snapshot(unchanged) == before
        return error

    return run
