"""Metrics as lines of JSON, one for each entry: `{"update": 40, "time": 1764000000.0, "train/loss": 5.1, ...}`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from cosyflow import storage

METRICS_FILE = "metrics.jsonl"
REMOTE_INTERVAL_SECONDS = 30.0


class MetricsFile:
    """A metrics file that a resumed run goes on with.

    Args:
        uri: local files grow line by line; an object in a store is written anew every REMOTE_INTERVAL_SECONDS.
        start: entries after this update are dropped: the run that wrote them was interrupted and is repeated from here.
    """

    def __init__(self, uri: str, start: int) -> None:
        self.uri = uri
        self._lines = [line for line in _read_lines(uri) if _update_of(line) <= start] if start else []
        storage.write_text(uri, "".join(self._lines))
        self._written = time.monotonic()

    def write(self, update: int, values: Mapping[str, float]) -> None:
        line = json.dumps({"update": update, "time": round(time.time(), 3), **values}) + "\n"
        self._lines.append(line)
        if not storage.is_remote(self.uri):
            storage.check_fences(self.uri)
            with open(self.uri, "a", encoding="utf-8") as file:  # noqa: PTH123 - the URI is a path
                file.write(line)
        elif time.monotonic() - self._written >= REMOTE_INTERVAL_SECONDS:
            self._upload()

    def close(self, finished: bool) -> None:
        if storage.is_remote(self.uri):
            self._upload()

    def _upload(self) -> None:
        storage.write_text(self.uri, "".join(self._lines))
        self._written = time.monotonic()


def _read_lines(uri: str) -> list[str]:
    """The whole lines of a metrics file; the last one is left out when the writer was killed within it."""
    if not storage.exists(uri):
        return []
    return [line for line in storage.read_text(uri).splitlines(keepends=True) if line.endswith("}\n")]


def _update_of(line: str) -> int:
    return int(json.loads(line)["update"])
