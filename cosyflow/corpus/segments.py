"""Kaldi's `segments`: utterances as parts of recordings, `UTTERANCE RECORDING START END` in seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cosyflow.audio.locator import Locator
from cosyflow.errors import AudioError, CosyFlowError

SEGMENTS = "segments"
MAX_OVERSHOOT = 0.5  # seconds that a segment may end after its recording, as Kaldi's extract-segments allows


@dataclass(frozen=True)
class Segment:
    """From `start` to `end` of a recording in seconds; None stands for the recording's end (-1 in the file)."""

    recording: str
    start: float
    end: float | None

    def within(self, recording: Locator, seconds: float) -> Locator:
        """The segment of a recording that lasts so long.

        Raises:
            AudioError: it begins or ends after the recording.
        """
        end = self.end
        if end is not None and seconds < end <= seconds + MAX_OVERSHOOT:
            end = None
        if self.start >= seconds or (end is not None and end > seconds):
            until = "its end" if self.end is None else f"{self.end:g}"
            raise AudioError(
                f"{recording}: segment beyond the end: {seconds:.2f} s long, it is {self.start:g} to {until}"
            )
        return self.of(recording, end)

    def of(self, recording: Locator, end: float | None) -> Locator:
        stop = recording.end if end is None else recording.start + end
        return Locator(recording.file, recording.start + self.start, stop)


def parse_segments(path: str, lines: Mapping[str, str]) -> dict[str, Segment]:
    """Segments by utterance, from the values of the lines of a file.

    Raises:
        CosyFlowError: a line is not `UTTERANCE RECORDING START END`, or its times are no part of a recording.
    """
    return {utt: _segment(path, utt, value.split()) for utt, value in lines.items()}


def _segment(path: str, utt: str, fields: list[str]) -> Segment:
    try:
        recording, start, end = fields[0], float(fields[1]), float(fields[2])
    except (IndexError, ValueError):
        raise CosyFlowError(f"{path}: {utt}: write `{utt} RECORDING START END`, times in seconds") from None
    is_open = end == -1
    if not (0 <= start < math.inf and (is_open or start < end < math.inf)):
        raise CosyFlowError(f"{path}: {utt}: {fields[1]} to {fields[2]} s is no part of a recording; correct the times")
    return Segment(recording, start, None if is_open else end)
