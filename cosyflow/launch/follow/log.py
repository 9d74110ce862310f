"""The output of a training job here: copied to standard output and a file while it is written there."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from cosyflow.errors import CosyFlowError
from cosyflow.launch.client import Cluster, LogLine, Unreachable
from cosyflow.redaction import redact

RECONNECT_SECONDS = 1.0


class PodLog:
    """Copies what a pod prints, each line once, from its start to its end, over as many connections as it takes."""

    def __init__(self, cluster: Cluster, pod: str, file: Path) -> None:
        self.pod = pod
        self._cluster = cluster
        self._file = file
        self._last = LogLine("", "")
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._copy, name=f"log of {pod}", daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Waits until the log of a pod that has ended is copied, and no longer than some seconds."""
        self._closing.set()
        self._thread.join(seconds)

    def _copy(self) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            last_round = False
            while not last_round:
                last_round = self._closing.is_set()
                try:
                    for line in self._cluster.follow_log(self.pod, self._last.time):
                        if _order(line.time) > _order(self._last.time):
                            self._last = line
                            for output in (file, sys.stdout):
                                output.write(redact(line.text) + "\n")
                                output.flush()
                except Unreachable:
                    last_round = False
                except CosyFlowError:  # it is gone, or does not print yet
                    pass
                if not last_round:
                    self._closing.wait(RECONNECT_SECONDS)


def _order(time: str) -> str:
    """Times of one form, of which the later is the greater; the runtime leaves out trailing zeros."""
    seconds, _, fraction = time.rstrip("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"
