"""Shards of recorded speech for training flow and vocoder, made by the parquet stage from a Kaldi folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from cosyflow.audio.opener import inspect_audio
from cosyflow.config.load import load_config
from cosyflow.config.recipe import Recipe
from cosyflow.dataset.alignment import Alignment
from cosyflow.dataset.parquet import make_parquet
from cosyflow.dataset.pitch import F0Method
from cosyflow.standins.text_models import make_qwen2_folder, make_whisper_ranks

REPOSITORY = Path(__file__).resolve().parents[2]
SPEECH = REPOSITORY.parent / "shared" / "speech" / "LibriTTS-mini"


@dataclass(frozen=True)
class SpeechCorpus:
    data_list: str
    tokenizer: str
    recipe: Path
    files: list[Path]


def recipe_of(version: str) -> Path:
    return REPOSITORY / "conf" / f"{version}.tiny.yaml"


def shortest_speech(count: int, least_seconds: float = 2.0) -> list[Path]:
    """The shortest recordings that are not shorter than so many seconds; skips the test where there are none."""
    if not SPEECH.is_dir():
        pytest.skip(f"no recorded speech at {SPEECH}")
    lengths = {file: inspect_audio(str(file)).seconds for file in sorted(SPEECH.rglob("*.wav"))}
    return sorted((file for file in lengths if lengths[file] >= least_seconds), key=lambda file: lengths[file])[:count]


def make_speech_corpus(directory: Path, version: str, files: list[Path], f0: F0Method = "none") -> SpeechCorpus:
    """Tokens are random, but as many as the recipe's tokenizer makes; embeddings tell the utterances apart."""
    source, output = directory / "source", directory / "shards"
    source.mkdir(parents=True)
    recipe: Recipe = load_config(recipe_of(version))
    rng = np.random.default_rng(0)
    utts = [file.stem for file in files]
    for name, values in {
        "wav.scp": [str(file) for file in files],
        "text": ["a small bird sang over the old stone bridge"] * len(files),
        "utt2spk": [utt.split("_")[0] for utt in utts],
    }.items():
        pairs = sorted(zip(utts, values, strict=True))
        (source / name).write_text("".join(f"{utt} {value}\n" for utt, value in pairs))
    tokens = {
        utt: rng.integers(0, 600, int(inspect_audio(str(file)).seconds * recipe.token_frame_rate)).tolist()
        for utt, file in zip(utts, files, strict=True)
    }
    embeddings = {utt: rng.normal(size=192).tolist() for utt in utts}
    torch.save(tokens, source / "utt2speech_token.pt")
    torch.save(embeddings, source / "utt2embedding.pt")
    torch.save({utt.split("_")[0]: embeddings[utt] for utt in utts}, source / "spk2embedding.pt")
    make_parquet(str(source), str(source), str(source), str(output), 3, alignment=Alignment.of(recipe), f0=f0)
    tokenizer = directory / "tokenizer"
    make_tokenizer(version, tokenizer)
    return SpeechCorpus(str(output / "data.list"), str(tokenizer), recipe_of(version), files)


def make_tokenizer(version: str, directory: Path) -> None:
    if version == "cosyvoice":
        directory.mkdir(parents=True)
        make_whisper_ranks(directory / "multilingual.tiktoken")
    else:
        make_qwen2_folder(directory, seed=0)
