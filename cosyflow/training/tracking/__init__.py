"""Where metrics go: a JSONL file in the folder of the checkpoints always, TensorBoard and MLflow when asked for.

None of them can stop a training run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from cosyflow.progress import say


class Sink(Protocol):
    """Takes metrics."""

    def write(self, update: int, values: Mapping[str, float]) -> None: ...

    def close(self, finished: bool) -> None:
        """Ends; `finished` is False when the run stopped before its end."""


class Tracker:
    """Passes metrics to every sink. A sink that fails, however, is reported in one line and left out from then on."""

    def __init__(self, makers: Mapping[str, Callable[[], Sink]] | None = None) -> None:
        self._sinks: dict[str, Sink] = {}
        for name, make in (makers or {}).items():
            try:
                self._sinks[name] = make()
            except Exception as error:
                self._report(name, error)

    def write(self, update: int, values: Mapping[str, float]) -> None:
        """Notes values by name (`train/loss`, `cv/acc`, ...) at a number of updates."""
        for name, sink in list(self._sinks.items()):
            try:
                sink.write(update, values)
            except Exception as error:
                del self._sinks[name]
                self._report(name, error)

    def close(self, finished: bool) -> None:
        for name, sink in list(self._sinks.items()):
            try:
                sink.close(finished)
            except Exception as error:
                del self._sinks[name]
                self._report(name, error)

    def _report(self, name: str, error: Exception) -> None:
        say("train", f"warning: no more metrics go to {name} ({' '.join(str(error).split())[:200]})")
