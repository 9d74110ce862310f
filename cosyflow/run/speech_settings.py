"""Settings of a run about its speech: how a corpus is imported, and what its recordings may be like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosyflow.config.options import option
from cosyflow.errors import Problem

if TYPE_CHECKING:
    from cosyflow.audio.fitness import Limits
    from cosyflow.corpus.importing.run import ImportSettings

CHECKS = ("full", "header")


@dataclass(frozen=True, kw_only=True)
class Speech:
    """What of a corpus is taken."""

    check_audio: str = option(
        "full: prepare decodes every recording and rejects what is silent, clipped, too quiet or off centre; header:"
        " it looks whether files are whole.",
        "full",
        choices=CHECKS,
    )
    min_level: float = option("dB of full scale that the loud parts of a recording need.", -50.0)
    max_clipped: float = option("Share of a recording's samples (0 to 1) that may be on flat tops.", 0.01)
    max_dc: float = option("Mean of a recording's samples, where full scale is 1.", 0.05)
    max_cancelled: float = option("dB that the mix of a recording's channels may be quieter than they are.", 20.0)
    text_column: str = option("Column of the transcript, where an import reads tables. Empty: a usual name.", "")
    speaker_column: str = option("Column of the speaker. Empty: a usual name, else folders name it.", "")
    audio_column: str = option("Column of the audio. Empty: a usual name.", "")
    dev_share: float = option("Share of the utterances (0 to 1) that an import in one piece gives to dev.", 0.05)
    dev_seed: int = option("What the choice of dev depends on.", 0)


IMPORT_SETTINGS = ("text_column", "speaker_column", "audio_column", "dev_share", "dev_seed")
"""What only an import reads."""


def impossible(speech: Speech) -> Iterator[Problem]:
    """What is wrong with single values."""
    for name, (least, most) in {"max_clipped": (0, 1), "max_dc": (0, 1), "dev_share": (0, 1)}.items():
        if not least <= getattr(speech, name) <= most:
            yield Problem(
                name, f"{getattr(speech, name):g} does not lie between {least} and {most}; give one that does"
            )
    if speech.dev_share == 1:
        yield Problem("dev_share", "1 leaves nothing to train on; give less than 1")
    if not -200 <= speech.min_level <= 0:
        yield Problem("min_level", f"{speech.min_level:g} is no level; give dB of full scale, 0 or less, e.g. -50")
    if not speech.max_cancelled >= 0:
        yield Problem("max_cancelled", f"{speech.max_cancelled:g} is less than 0; give dB, 0 or more")


def limits_of(speech: Speech) -> Limits | None:
    """What recordings may be like; None where only their headers are looked at."""
    from cosyflow.audio.fitness import Limits

    if speech.check_audio == "header":
        return None
    return Limits(speech.min_level, speech.max_cancelled, speech.max_clipped, speech.max_dc)


def import_settings_of(speech: Speech) -> ImportSettings:
    """How an import is made; prepare measures the audio afterwards."""
    from cosyflow.corpus.importing.run import ImportSettings
    from cosyflow.corpus.importing.source import Columns

    columns = Columns(speech.text_column, speech.speaker_column, speech.audio_column)
    return ImportSettings(columns, speech.dev_share, speech.dev_seed)
