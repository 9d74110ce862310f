"""A corpus is made in a folder and then read there, or from a store that it was copied to."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cosyflow import storage
from cosyflow.corpus.importing.result import Summary
from cosyflow.corpus.importing.run import ImportSettings, import_corpus
from cosyflow.corpus.kaldi import KaldiUtterance, read_kaldi

RATE = 24_000


def audio(number: int = 1, format: str = "WAV", seconds: float = 0.25) -> bytes:
    """A tone of its own for each number, as a file."""
    stream = io.BytesIO()
    time = np.arange(round(seconds * RATE)) / RATE
    tone = 0.2 * np.sin(2 * np.pi * (200 + 40 * number) * time)
    soundfile.write(stream, tone, RATE, format=format, subtype="PCM_16" if format in ("WAV", "FLAC") else None)
    return stream.getvalue()


class Corpus:
    """A corpus that is built file by file, where it is read, and what an import of it gave."""

    def __init__(self, built: Path, place: str) -> None:
        self.built, self.place = built, place
        self.dst = f"{place}-imported"

    def put(self, name: str, content: bytes | str) -> Path:
        path = self.built / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def run(self, settings: ImportSettings | None = None, within: str = "") -> Summary:
        if storage.is_remote(self.place):
            storage.upload_tree(self.built, self.place)
        summary = import_corpus(storage.join(self.place, within), self.dst, settings or ImportSettings(dev_share=0))
        assert summary.seen == len(summary.taken) + summary.reasons.total() + summary.ignored.total()
        return summary

    def utterances(self, part: str = "train") -> dict[str, KaldiUtterance]:
        return {each.utt: each for each in read_kaldi(storage.join(self.dst, part)).utterances}

    def heard(self) -> dict[str, tuple[str, str]]:
        """(speaker, text) by utterance."""
        return {utt: (each.spk, each.text) for utt, each in self.utterances().items()}


@pytest.fixture
def corpus(tmp_path: Path, folder: str) -> Corpus:
    """In a folder of this machine, and in a store."""
    built = tmp_path / "store" if not storage.is_remote(folder) else tmp_path / "built"
    built.mkdir(parents=True)
    return Corpus(built, folder)


@pytest.fixture
def local_corpus(tmp_path: Path) -> Corpus:
    (tmp_path / "corpus").mkdir()
    return Corpus(tmp_path / "corpus", str(tmp_path / "corpus"))
