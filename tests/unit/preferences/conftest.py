"""A tiny reference model, and a corpus of tones to sample for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cosyflow.config.recipe import Recipe
from tests.unit.evaluation.conftest import CONFIG, SMALLER, model_dirs, recipe, record

__all__ = ["CONFIG", "Corpus", "Recipe", "model_dirs", "recipe"]

TEXTS = {"a-1": "A lamp.", "a-2": "The sky.", "b-1": "The red boat."}
SETTINGS = [word for setting in SMALLER for word in ("--set", setting)]


class Corpus:
    """A Kaldi folder `src` of three utterances, two of them of one speaker, with speech tokens."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.src, self.des = folder / "src", folder / "src_reject"
        self.src.mkdir()
        self.write(TEXTS)

    def write(self, texts: dict[str, str]) -> None:
        wavs = {utt: record(self.src / f"{utt}.wav", 0.8 + 0.1 * place) for place, utt in enumerate(texts)}
        speakers = {utt: utt.partition("-")[0] for utt in texts}
        for name, table in (("wav.scp", wavs), ("text", texts), ("utt2spk", speakers)):
            (self.src / name).write_text("".join(f"{utt} {value}\n" for utt, value in table.items()))
        self.set_tokens({utt: [1, 2, 3] for utt in texts})

    def set_tokens(self, tokens: dict[str, list[int]]) -> None:
        torch.save(tokens, self.src / "utt2speech_token.pt")

    def words(self, *more: str) -> list[str]:
        places = ["--src_dir", str(self.src), "--des_dir", str(self.des), "--ref_model", str(self.model)]
        return ["reject-samples", *places, "--config", CONFIG, *SETTINGS, "--num_processes", "1", *more]

    def tokens(self) -> dict[str, list[int]]:
        """The samples."""
        found: dict[str, list[int]] = torch.load(self.des / "utt2speech_token.pt", weights_only=True)
        return found

    def rejects(self) -> dict[str, str]:
        lines = (self.des / "rejects.tsv").read_text().splitlines()
        return dict(line.split("\t", 1) for line in lines[1:])


@pytest.fixture
def corpus(tmp_path: Path, model_dirs: Callable[[int], Path]) -> Corpus:
    return Corpus(tmp_path, model_dirs(0))
