"""Shows how far a stage is: a bar on a terminal, a line every few seconds elsewhere.

A bar redraws itself with carriage returns, which KFP's log readers turn into thousands of lines; so the bar is only for
terminals.
"""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self, TextIO

from tqdm import tqdm

LINE_INTERVAL_SECONDS = 3.0
STAGE_VARIABLE = "COSYFLOW_STAGE"


def format_seconds(seconds: float) -> str:
    """Seconds as `MM:SS`, or `H:MM:SS` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def say(label: str, message: str, stream: TextIO | None = None) -> None:
    """Prints one line of a stage, `[stage 4/11 speech-token] message`; the number is known only within a pipeline."""
    position = os.environ.get(STAGE_VARIABLE, "")
    prefix = f"stage {position} {label}" if position else label
    print(f"[{prefix}] {message}", file=stream or sys.stdout, flush=True)


class Progress:
    """Progress over `total` units of work, used as a context manager.

    Args:
        label: what is being worked on, e.g. "speech-token dev-clean".
        total: number of units; None when it is not known beforehand.
        unit: plural name of what is counted.
        stream: where the lines go; standard output by default.

    A first line appears after LINE_INTERVAL_SECONDS and a last one at the end, so that short stages are not silent.
    """

    def __init__(self, label: str, total: int | None, unit: str = "utterances", stream: TextIO | None = None) -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self.done = 0
        self.info: dict[str, object] = {}
        self._stream = stream or sys.stdout
        self._bar: tqdm[None] | None = None

    def __enter__(self) -> Self:
        self._start = self._last_line = time.monotonic()
        if self._stream.isatty():
            self._bar = tqdm(total=self.total, desc=self.label, unit=f" {self.unit}", file=self._stream)
        return self

    def update(self, count: int = 1, **info: object) -> None:
        """Counts `count` further units as done; `info` (e.g. loss=2.1) stands at the end of the line."""
        self.done += count
        self.info.update(info)
        if self._bar is not None:
            if info:
                self._bar.set_postfix({name: str(value) for name, value in self.info.items()}, refresh=False)
            self._bar.update(count)
        elif self.done != self.total and time.monotonic() - self._last_line >= LINE_INTERVAL_SECONDS:
            self._last_line = time.monotonic()
            say(self.label, self._describe(), self._stream)

    def _describe(self) -> str:
        elapsed = time.monotonic() - self._start
        rate = self.done / elapsed if elapsed > 0 else 0.0
        parts = [f"{self.done} {self.unit}" if self.total is None else f"{self.done}/{self.total} {self.unit}"]
        if self.total:
            parts.append(f"{100 * self.done / self.total:.0f} %")
        parts.append(f"{rate:.1f}/s")
        if self.total is not None and self.done < self.total and rate > 0:
            parts.append(f"ETA {format_seconds((self.total - self.done) / rate)}")
        parts += [f"{name} {value}" for name, value in self.info.items()]
        return "  ".join(parts)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif kind is None:
            elapsed = format_seconds(time.monotonic() - self._start)
            say(self.label, f"{self._describe()}  done in {elapsed}", self._stream)
