"""Judges hear the utterances of a row, each judge each utterance once: its answer is kept in a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cosyflow import storage
from cosyflow.errors import CosyFlowError
from cosyflow.evaluation.judges import TRANSCRIPT, Judge
from cosyflow.evaluation.judges.load import describe, load_judge
from cosyflow.evaluation.judges.named import Judges, Missing, Named
from cosyflow.evaluation.sound import load_sound
from cosyflow.evaluation.speaking import file_name
from cosyflow.evaluation.workers import Workers

Answer = float | str
Heard = dict[str, list[Answer] | Missing]
"""By role what a judge made of each utterance of a row, or why it did not judge."""

VERSION = 1
"""Of the judges' code; raise it when one of them answers otherwise."""


@dataclass(frozen=True)
class Utterance:
    """What is heard, and the recording whose voice should speak."""

    utt: str
    wav: str
    prompt_wav: str
    can_be_heard: bool = True
    """Empty and silent audio goes to no judge."""


@dataclass(frozen=True)
class _Task:
    judge: Named
    path: str
    language: str
    utterance: Utterance
    answer: str


def hear(
    workers: Workers,
    label: str,
    judges: Judges,
    utterances: Sequence[Utterance],
    folder: str,
    language: str,
    skipped: Mapping[str, Answer],
) -> Heard:
    """What each judge makes of each utterance.

    Args:
        folder: where the answers are kept; what is there is not asked again.
        language: of the speech.
        skipped: by role, the answer for what cannot be heard.
    """
    found: Heard = {}
    for role, judge in judges.items():
        if isinstance(judge, Missing):
            found[role] = judge
        else:
            place = storage.join(folder, _folder_of(judge, language))
            found[role] = _ask(workers, f"{label} {role}", judge, utterances, place, language, skipped[role])
    return found


def _ask(
    workers: Workers,
    label: str,
    judge: Named,
    utterances: Sequence[Utterance],
    folder: str,
    language: str,
    skipped: Answer,
) -> list[Answer] | Missing:
    there = {file.path for file in storage.list_files(folder)} if storage.exists(folder) else set()
    names = [_answer_name(number, each.utt) for number, each in enumerate(utterances)]
    waiting = [
        (each, name) for each, name in zip(utterances, names, strict=True) if each.can_be_heard and name not in there
    ]
    with storage.local_copy(judge.uri) as path:
        tasks = [_Task(judge, str(path), language, each, storage.join(folder, name)) for each, name in waiting]
        for failure in workers.map(label, _hear, tasks):
            if failure is not None:
                return failure
    return [
        storage.read_json(storage.join(folder, name)) if each.can_be_heard else skipped
        for each, name in zip(utterances, names, strict=True)
    ]


def _folder_of(judge: Named, language: str) -> str:
    spoken = f"-{language}" if judge.role == TRANSCRIPT else ""
    return f"{judge.role}{spoken}-{judge.digest[:16]}-{VERSION}"


def _answer_name(number: int, utt: str) -> str:
    return file_name(number, utt).removesuffix(".wav") + ".json"


_loaded: dict[str, Judge | Missing] = {}
"""The judges of this process, by role and content."""


def _hear(task: _Task) -> Missing | None:
    """Writes a judge's answer, or says why there is none."""
    name = task.judge.uri
    judge = _loaded_once(
        f"{task.judge.role} {task.judge.digest} {task.language}",
        lambda: load_judge(task.judge.role, task.path, name, task.language),
    )
    if isinstance(judge, Missing):
        return judge
    utterance = task.utterance
    sound, prompt = load_sound(utterance.wav), load_sound(utterance.prompt_wav)
    try:
        answer = judge.hear(sound, prompt)
    except CosyFlowError as error:
        return Missing(f"{utterance.utt}: {error}")
    except Exception as error:  # judges raise whatever they like, MemoryError and RuntimeError among it
        return Missing(f"{name}: it failed on {utterance.utt} ({describe(error)})")
    if isinstance(answer, float) and not math.isfinite(answer):
        return Missing(f"{name}: it gave {answer} for {utterance.utt}")
    storage.write_json(task.answer, answer)
    return None


def _loaded_once(key: str, load: Callable[[], Judge | Missing]) -> Judge | Missing:
    if key not in _loaded:
        _loaded[key] = load()
    return _loaded[key]
