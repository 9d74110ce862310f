"""Finished pieces of an unfinished job, so that it can go on where it was interrupted."""

from __future__ import annotations

import json
import time
from typing import Any

from cosyflow import storage
from cosyflow.errors import CosyFlowError, PlaceError

FOLDER = "parts"
FLUSH_UTTERANCES = 500
FLUSH_SECONDS = 10.0


class Parts:
    """Values by utterance, kept in small files `parts/NUMBER.json` below the job's output folder.

    Args:
        output_dir: folder or s3:// prefix of the job.
        identity: digest of the job's inputs and model; parts of another identity are not used.

    What was added is written every FLUSH_UTTERANCES utterances or FLUSH_SECONDS, so an interruption costs no more.
    """

    def __init__(self, output_dir: str, identity: str) -> None:
        self._folder = storage.join(output_dir, FOLDER)
        self._identity = identity
        self._pending: dict[str, list[Any]] = {}
        self._last_flush = time.monotonic()
        self._next_number = 0

    def load(self) -> dict[str, list[Any]]:
        """The values of all parts of this identity."""
        values: dict[str, list[Any]] = {}
        if not storage.exists(self._folder):
            return values
        for file in storage.list_files(self._folder):
            number = file.path.removesuffix(".json")
            if not number.isdecimal():
                continue
            self._next_number = max(self._next_number, int(number) + 1)
            part = self._read(storage.join(self._folder, file.path))
            if part.get("identity") == self._identity:
                values |= part["values"]
        return values

    def add(self, values: dict[str, list[Any]]) -> None:
        """Takes further values, and writes a part when it is time."""
        self._pending |= values
        due = time.monotonic() - self._last_flush >= FLUSH_SECONDS
        if len(self._pending) >= FLUSH_UTTERANCES or (due and self._pending):
            part = {"identity": self._identity, "values": self._pending}
            storage.write_text(storage.join(self._folder, f"{self._next_number:06d}.json"), json.dumps(part))
            self._next_number += 1
            self._pending = {}
            self._last_flush = time.monotonic()

    def remove(self) -> None:
        """Removes all parts: the job's outputs are written."""
        if storage.exists(self._folder):
            storage.remove(self._folder)

    @staticmethod
    def _read(uri: str) -> dict[str, Any]:
        """A damaged part is as good as none: its utterances are worked on again."""
        try:
            part = storage.read_json(uri)
        except PlaceError:
            raise
        except CosyFlowError:
            return {}
        return part if isinstance(part, dict) else {}
