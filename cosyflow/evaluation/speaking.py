"""A model directory speaks the texts of a list, or what the recordings' own tokens stand for."""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch

from cosyflow import storage
from cosyflow.config.recipe import Recipe
from cosyflow.content import Digests, combine
from cosyflow.errors import CosyFlowError
from cosyflow.evaluation.listing import Entry
from cosyflow.evaluation.workers import Workers
from cosyflow.families import family
from cosyflow.pretrained import SPEAKER_MODEL, locate
from cosyflow.progress import say
from cosyflow.synthesis.prompt import PromptReader
from cosyflow.synthesis.request import Request
from cosyflow.synthesis.synthesizer import MOST_TOKENS, Synthesizer
from cosyflow.synthesis.wav import write_wav

VERSION = 1
"""Of what is spoken; raise it when equal models speak otherwise."""


@dataclass(frozen=True)
class Model:
    """A complete model directory, and what it is by content."""

    uri: str
    recipe: Recipe
    files: dict[str, str]
    """SHA-256 of each file, by its name."""

    @property
    def digest(self) -> str:
        return combine(self.files)


@dataclass(frozen=True)
class Speech:
    """One task: what is spoken, and where the wav goes."""

    model: Model
    place: str
    """A folder of this machine with the model's files."""
    entry: Entry
    seed: int
    wav: str
    resynthesis: bool


def inspect_model(uri: str, recipe: Recipe) -> Model:
    """Looks whether a model directory has all its parts, and names it by content.

    Raises:
        CosyFlowError: a part is missing, or does not fit the recipe, as those of two versions do not.
    """
    if not storage.is_folder(uri):
        raise CosyFlowError(f"{uri}: no such model directory; cosyflow export --pretrained_dir makes one")
    known = family(recipe.version)
    for part in known.parts.values():
        locate(uri, *part.weights)
    for name in (SPEAKER_MODEL, known.speech_tokenizer.file, known.text_tokenizer):
        locate(uri, name)
    return Model(uri, recipe, Digests().tree(uri))


def speech_key(kind: str, model: Model, list_digest: str, seed: int) -> str:
    """Names what a model makes of a list."""
    recipe = model.recipe
    sizes = (recipe.version, recipe.sample_rate, recipe.token_frame_rate, recipe.mel)
    named = (VERSION, kind, model.digest, list_digest, seed, sizes, recipe.llm, recipe.flow, recipe.hifigan)
    return hashlib.sha256(repr(named).encode()).hexdigest()[:16]


def speak(
    workers: Workers, label: str, model: Model, entries: Sequence[Entry], folder: str, seed: int, resynthesis: bool
) -> list[str]:
    """Speaks what is not yet in a folder. Returns the wav of each entry; a `.json` of the same name has its facts.

    Args:
        label: of the progress lines.
        resynthesis: not the text, but the tokens of its recording go through flow and vocoder.

    Raises:
        CosyFlowError: a part does not fit, or a prompt cannot be used.
    """
    wavs = [storage.join(folder, file_name(number, entry.utt)) for number, entry in enumerate(entries)]
    there = {file.path for file in storage.list_files(folder)} if storage.exists(folder) else set()
    waiting = [
        (entry, wav) for entry, wav in zip(entries, wavs, strict=True) if storage.name(facts_of(wav)) not in there
    ]
    if len(waiting) < len(entries):
        say(label, f"{len(entries) - len(waiting)} of {len(entries)} utterances are there already")
    if waiting:
        with storage.local_copy(model.uri) as place:
            tasks = [
                Speech(model, str(place), entry, seed_of(seed, entry.utt), wav, resynthesis) for entry, wav in waiting
            ]
            workers.map(label, _speak, tasks)
    return wavs


def facts_of(wav: str) -> str:
    """The file that says how an utterance was spoken, written after its wav: whether it ended by itself, and when."""
    return wav.removesuffix(".wav") + ".json"


def file_name(number: int, utt: str) -> str:
    """The wav of the utterance of that number in its list."""
    return f"{number:05d}-{re.sub(r'[^A-Za-z0-9_-]', '_', utt)[:80]}.wav"


def seed_of(seed: int, utt: str) -> int:
    """The seed of one utterance, which does not depend on the others."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{utt}".encode()).digest()[:7], "big")


_loaded: dict[tuple[str, str], tuple[PromptReader, Synthesizer]] = {}
"""The models of this process; one directory at a time."""


def load_once(model: Model, place: str) -> tuple[PromptReader, Synthesizer]:
    """The models of a directory whose files are in a folder of this machine; kept for the next task of this process.

    Raises:
        CosyFlowError: a part does not fit; the message names it below the directory's own address.
    """
    key = (place, model.digest)
    if key not in _loaded:
        _loaded.clear()
        try:
            with redirect_stdout(io.StringIO()):
                _loaded[key] = PromptReader.load(place, model.recipe), Synthesizer.load(place, model.recipe)
        except CosyFlowError as error:
            raise CosyFlowError(str(error).replace(place, model.uri)) from error
    return _loaded[key]


def _speak(task: Speech) -> None:
    entry = task.entry
    with redirect_stdout(io.StringIO()):  # progress is that of the list, not of each utterance
        waveform, facts = _spoken(task)
    write_wav(waveform, task.model.recipe.sample_rate, task.wav)
    storage.write_json(facts_of(task.wav), {"utt": entry.utt, **facts})


def _spoken(task: Speech) -> tuple[torch.Tensor, dict[str, Any]]:
    """The waveform, and how it was spoken."""
    entry = task.entry
    reader, synthesizer = load_once(task.model, task.place)
    started = time.perf_counter()
    request = Request(entry.text, entry.prompt_wav, entry.prompt_text)
    prompt = reader.read(request)
    most = None
    if task.resynthesis:
        tokens = reader.tokens(entry.recording)
    else:
        tokens = list(synthesizer.speech_tokens(request, prompt, task.seed))
        most = MOST_TOKENS * len(synthesizer.tokenizer.encode(entry.text))
    waveform = synthesizer.waveform(tokens, prompt, task.seed) if tokens else torch.zeros(0)
    ended = most is None or len(tokens) < most
    return waveform, {"tokens": len(tokens), "ended": ended, "spent": time.perf_counter() - started}
