"""Which columns of a table hold text, audio and speaker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cosyflow.corpus.importing.source import Columns
from cosyflow.errors import Problem

TEXT = (
    "normalized_text", "text_normalized", "normalized_transcription", "text", "sentence", "transcript",
    "transcription", "raw_text", "caption", "utterance", "content",
)  # fmt: skip
AUDIO = (
    "audio", "audio_filepath", "audio_path", "audio_file", "audio_filename", "file_name", "filename", "file_path",
    "path", "file", "wav", "wav_path", "wav_file", "wav_filename", "mp3", "flac", "speech", "clip", "id", "utt",
    "utterance_id", "utteranceid", "segment_id",
)  # fmt: skip
SPEAKER = (
    "speaker", "speaker_id", "speaker_name", "speakerid", "spk", "spk_id", "spkid", "client_id", "user_id", "voice",
)  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """The columns of one table; `speaker` is "" when it has none."""

    text: str
    audio: str
    speaker: str


def choose(names: Sequence[str], wanted: Columns) -> Chosen | None:
    """The columns that were asked for, or those whose names are known; None when a table has not got them."""
    if missing(names, wanted):
        return None
    text, audio = wanted.text or _known(names, TEXT), wanted.audio or _known(names, AUDIO)
    if not text or not audio:
        return None
    return Chosen(text, audio, wanted.speaker or _known(names, SPEAKER))


def text_and_speaker(names: Sequence[str], wanted: Columns) -> tuple[str, str]:
    """Those two columns; "" for one that is not there."""
    return wanted.text or _known(names, TEXT), wanted.speaker or _known(names, SPEAKER)


def missing(names: Sequence[str], wanted: Columns) -> list[Problem]:
    """Columns that were asked for and are not among these, as settings of `cosyflow import`."""
    return [
        Problem(f"--{kind}-column", f"there is no column '{name}'; name one of {', '.join(names)}")
        for kind, name in (("text", wanted.text), ("speaker", wanted.speaker), ("audio", wanted.audio))
        if name and name not in names
    ]


def _known(names: Sequence[str], known: Sequence[str]) -> str:
    by_lower = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in reversed(names)}
    return next((by_lower[name] for name in known if name in by_lower), "")
