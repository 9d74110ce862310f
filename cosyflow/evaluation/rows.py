"""The rows of a report: what the candidate speaks, next to recorded speech, its resynthesis, and the champion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cosyflow import storage
from cosyflow.audio.opener import inspect_audio
from cosyflow.evaluation.hearing import Heard, Utterance, hear
from cosyflow.evaluation.judges import TRANSCRIPT
from cosyflow.evaluation.judges.named import Judges, Missing
from cosyflow.evaluation.listing import Entry
from cosyflow.evaluation.measures import UNHEARD, Facts, Pairs, failure_of, measure
from cosyflow.evaluation.sound import load_sound
from cosyflow.evaluation.speaking import facts_of
from cosyflow.evaluation.workers import Workers

CANDIDATE, RECORDED, RESYNTHESIS, CHAMPION = "candidate", "recorded", "resynthesis", "champion"
ROWS = (CANDIDATE, RECORDED, RESYNTHESIS, CHAMPION)


@dataclass(frozen=True)
class Row:
    """One row: its measurements, and for each utterance what was heard."""

    name: str
    wavs: list[str]
    facts: list[Facts]
    heard: Heard
    pairs: Pairs

    def transcript(self, number: int) -> str | None:
        """What was understood of an utterance; None without a judge that writes."""
        answers = self.heard[TRANSCRIPT]
        return None if isinstance(answers, Missing) else str(answers[number])


def judge_row(
    name: str,
    wavs: Sequence[str],
    entries: Sequence[Entry],
    judges: Judges,
    workers: Workers,
    folder: str,
    language: str,
) -> Row:
    """Lets judges hear the wav of each entry.

    Args:
        name: of the row. Recorded speech and resynthesis say what the recording says, the others the list's text.
        folder: where the judges' answers are kept; it belongs to these very wavs.

    Raises:
        AudioError: a file cannot be decoded.
    """
    facts = [_facts(name, wav, entry) for wav, entry in zip(wavs, entries, strict=True)]
    utterances = [
        Utterance(entry.utt, wav, entry.prompt_wav, each.failure not in ("empty", "silent"))
        for entry, wav, each in zip(entries, wavs, facts, strict=True)
    ]
    heard = hear(workers, f"hear {name}", judges, utterances, folder, language, UNHEARD)
    return Row(name, list(wavs), facts, heard, measure(facts, heard, language))


def _facts(row: str, wav: str, entry: Entry) -> Facts:
    of_recording = row in (RECORDED, RESYNTHESIS)
    sound = load_sound(wav)
    expected = inspect_audio(entry.recording).seconds
    if not of_recording and not entry.wav:  # no recording of the text: as fast as the prompt
        expected *= len(entry.text) / len(entry.prompt_text)
    spoken = storage.read_json(facts_of(wav)) if row != RECORDED and storage.exists(facts_of(wav)) else {}
    empty = sound.is_empty
    failure = failure_of(sound.seconds, expected, empty, not empty and sound.is_silent, spoken.get("ended", True))
    said = entry.said if of_recording else entry.text
    is_prompt = row == RECORDED and not entry.wav
    return Facts(entry.utt, said, sound.seconds, max(expected, 0.1), failure, spoken.get("spent"), is_prompt)
