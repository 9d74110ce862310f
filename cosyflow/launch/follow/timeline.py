"""What happened to a training job and when, as a file that stays."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from cosyflow import storage
from cosyflow.errors import CosyFlowError


class Timeline:
    """Entries of `time` (RFC 3339, UTC), `event` and further facts, one JSON object a line.

    An existing file is gone on with. The file is written again after each entry; what cannot be written now is written
    with the next entry.
    """

    def __init__(self, uri: str, report: Callable[[str], None]) -> None:
        self.uri = uri
        self._report = report
        self._lock = threading.Lock()
        self._text = storage.read_text(uri) if storage.exists(uri) else ""

    def add(self, event: str, message: str, **more: object) -> None:
        """Notes an event and reports its message."""
        entry = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, "message": message}
        self._report(message)
        with self._lock:
            self._text += json.dumps(entry | more, ensure_ascii=False) + "\n"
            try:
                storage.write_text(self.uri, self._text)
            except CosyFlowError as error:
                self._report(f"cannot write {self.uri} now: {error}")
