"""Samples of a reference model: for each utterance of a corpus the speech tokens that it would speak itself."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any, Literal

from cosyflow import storage
from cosyflow.corpus.kaldi import KaldiUtterance
from cosyflow.errors import CosyFlowError, MachineError, PlaceError
from cosyflow.evaluation.listing import why_not
from cosyflow.evaluation.speaking import Model, facts_of, file_name, load_once, seed_of
from cosyflow.evaluation.workers import Workers
from cosyflow.progress import say
from cosyflow.synthesis.request import Request
from cosyflow.synthesis.synthesizer import MOST_TOKENS
from cosyflow.synthesis.wav import write_wav

VERSION = 1
"""Of what is sampled; raise it when equal models and texts give other tokens."""
LABEL = "reject-samples"
FILES_AT_ONCE = 32

PromptKind = Literal["own", "other"]
"""The utterance itself is the prompt, as in the official recipe, or another one of its speaker."""


@dataclass(frozen=True)
class Sampling:
    """How samples are made."""

    model: Model
    """The reference."""
    prompt: PromptKind = "own"
    spoken: bool = False
    """The tokens of a sample are those of its speech, not those that the language model gave."""
    heard: bool = False
    """The speech of a sample is wanted, whatever its tokens are."""
    seed: int = 0

    @property
    def key(self) -> str:
        """Names what samples are made of besides their utterance."""
        recipe = self.model.recipe
        sizes = (recipe.version, recipe.sample_rate, recipe.token_frame_rate, recipe.mel)
        parts = (recipe.llm, recipe.flow, recipe.hifigan)
        named = (VERSION, self.model.digest, self.prompt, self.spoken, self.heard, self.seed, sizes, parts)
        return hashlib.sha256(repr(named).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Sample:
    """What the reference speaks in the place of an utterance."""

    utt: str
    tokens: list[int]
    own: list[int] | None
    """Tokens of the recording, where nobody extracted them before."""
    wav: str
    """Its speech; "" when that was not wanted."""
    ended: bool
    """Whether the model ended it by itself."""
    identity: str
    """Digest of what it is of: the utterance and its prompt."""


@dataclass(frozen=True)
class Samples:
    """Of all utterances: a sample, or a reason."""

    made: dict[str, Sample]
    rejects: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Task:
    sampling: Sampling
    place: str
    """A folder of this machine with the model's files."""
    utterance: KaldiUtterance
    prompt: KaldiUtterance
    has_tokens: bool
    wav: str
    """Where the speech goes; the facts lie next to it."""

    @property
    def identity(self) -> str:
        """What the sample is of."""
        said = [self.utterance.utt, self.utterance.text, self.utterance.wav, self.has_tokens]
        content = json.dumps([*said, self.prompt.wav, self.prompt.text])
        return hashlib.sha256(content.encode()).hexdigest()


def sample_corpus(
    workers: Workers,
    utterances: Sequence[KaldiUtterance],
    tokens: Mapping[str, Any] | None,
    sampling: Sampling,
    folder: str,
) -> Samples:
    """Samples every utterance that is not in a folder yet.

    Args:
        tokens: of the recordings, by utterance; None where nobody extracted them.
        folder: one file a sample, so that an interrupted call goes on; those of other settings do not matter.

    Raises:
        CosyFlowError: a part of the model does not fit.
    """
    place = storage.join(folder, sampling.key)
    rejects = {each.utt: reason for each in utterances if (reason := _why_unusable(each, tokens))}
    usable = [(number, each) for number, each in enumerate(utterances) if each.utt not in rejects]
    prompts = choose_prompts([each for _, each in usable], sampling.prompt, sampling.seed)
    rejects |= {utt: prompt for utt, prompt in prompts.items() if isinstance(prompt, str)}
    with storage.local_copy(sampling.model.uri) as path:
        tasks = [
            _Task(
                sampling, str(path), each, prompt, tokens is not None, storage.join(place, file_name(number, each.utt))
            )
            for number, each in usable
            if not isinstance(prompt := prompts[each.utt], str)
        ]
        there = _read_samples(tasks, place)
        waiting = [task for task in tasks if task.utterance.utt not in there]
        if there:
            say(LABEL, f"{len(there)} of {len(tasks)} samples are there already")
        reasons = workers.map(LABEL, _sample, waiting)
    rejects |= {task.utterance.utt: reason for task, reason in zip(waiting, reasons, strict=True) if reason is not None}
    made = there | _read_samples([task for task in waiting if task.utterance.utt not in rejects], place)
    return Samples({each.utt: made[each.utt] for _, each in usable if each.utt in made}, rejects)


def choose_prompts(
    utterances: Sequence[KaldiUtterance], kind: PromptKind, seed: int
) -> dict[str, KaldiUtterance | str]:
    """The prompt of each utterance, or why it has none. It depends on its speaker's utterances alone."""
    if kind == "own":
        return {each.utt: each for each in utterances}
    speakers: dict[str, list[KaldiUtterance]] = {}
    for each in sorted(utterances, key=lambda each: each.utt):
        speakers.setdefault(each.spk, []).append(each)
    found: dict[str, KaldiUtterance | str] = {}
    for each in utterances:
        others = [other for other in speakers[each.spk] if other.utt != each.utt]
        drawn = random.Random(seed_of(seed, f"prompt {each.utt}"))
        found[each.utt] = drawn.choice(others) if others else f"its speaker {each.spk} has no other for the prompt"
    return found


def _why_unusable(utterance: KaldiUtterance, tokens: Mapping[str, Any] | None) -> str | None:
    if tokens is not None and not len(tokens.get(utterance.utt, ())):
        return "has no speech tokens of its recording"
    return why_not(utterance.text)


def _read_samples(tasks: Sequence[_Task], place: str) -> dict[str, Sample]:
    """What is there of some samples and still of the same utterances."""
    names = {file.path for file in storage.list_files(place)} if storage.exists(place) else set()
    there = [task for task in tasks if storage.name(facts_of(task.wav)) in names]
    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        found = [each for each in threads.map(_read_sample, there) if each is not None]
    return {each.utt: each for each in found}


def _read_sample(task: _Task) -> Sample | None:
    try:
        content = storage.read_json(facts_of(task.wav))
    except PlaceError:
        raise
    except CosyFlowError:  # damaged, which is as good as none
        return None
    if not isinstance(content, dict) or content.get("identity") != task.identity:
        return None
    wav = task.wav if content["spoken"] else ""
    return Sample(task.utterance.utt, content["sample"], content["own"], wav, content["ended"], task.identity)


def _sample(task: _Task) -> str | None:
    """Writes a sample, its facts last. Returns the reason when the utterance cannot have one."""
    load_once(task.sampling.model, task.place)  # what is wrong with the model is no fault of the utterance
    try:
        with redirect_stdout(io.StringIO()):  # progress is that of the corpus, not of each utterance
            content = _draw(task)
    except (PlaceError, MachineError):
        raise
    except CosyFlowError as error:
        return str(error)
    storage.write_json(facts_of(task.wav), {"utt": task.utterance.utt, "identity": task.identity, **content})
    return None


def _draw(task: _Task) -> dict[str, Any]:
    sampling, utterance, prompt = task.sampling, task.utterance, task.prompt
    reader, synthesizer = load_once(sampling.model, task.place)
    request = Request(utterance.text, prompt.wav, prompt.text)
    voice = reader.read(request)
    seed = seed_of(sampling.seed, utterance.utt)
    tokens = list(synthesizer.speech_tokens(request, voice, seed))
    if not tokens:
        raise CosyFlowError("the reference speaks nothing")
    most = MOST_TOKENS * len(synthesizer.tokenizer.encode(utterance.text))
    spoken = sampling.spoken or sampling.heard
    facts = {"ended": len(tokens) < most, "spoken": spoken}
    if spoken:
        waveform = synthesizer.waveform(tokens, voice, seed)
        write_wav(waveform, sampling.model.recipe.sample_rate, task.wav)
    if sampling.spoken:
        tokens = reader.tokens(task.wav)
    own = None if task.has_tokens else reader.tokens(utterance.wav)
    return {**facts, "sample": tokens, "own": own}
