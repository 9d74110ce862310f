"""Output of a training run on a terminal: its progress lines become one bar that is drawn anew in its place."""

from __future__ import annotations

import re
from typing import TextIO

BAR_CELLS = 20
_PROGRESS = re.compile(r"epoch (\d+)/(\d+)  step (\d+)/(\d+)  ")
_CLEAR = "\r\x1b[2K"


class Screen:
    """Shows lines: as they are in a file or pipe; on a terminal with a bar for those that say how far the run is."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._has_bar = False

    def show(self, line: str) -> None:
        """Shows a line, which ends with a newline."""
        place = _PROGRESS.search(line) if self._stream.isatty() else None
        clear = _CLEAR if self._has_bar else ""
        self._has_bar = place is not None
        if place is None:
            self._stream.write(clear + line)
        else:
            epoch, epochs, step, steps = (int(number) for number in place.groups())
            done = (epoch - 1 + step / steps) / epochs
            cells = "#" * round(BAR_CELLS * done)
            self._stream.write(f"{clear}{100 * done:3.0f}% |{cells:<{BAR_CELLS}}| {line[place.start() :].rstrip()}")
        self._stream.flush()

    def end(self) -> None:
        """Leaves a bar that stands there as the last line."""
        if self._has_bar:
            self._stream.write("\n")
            self._stream.flush()
            self._has_bar = False
