"""What a controller answers by HTTP: `/healthz` and `/metrics`."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8080
SILENT_SECONDS = 600.0
"""A leader that has not looked for longer hangs."""
HELP = {
    "looks": ("counter", "Looks at all Retrainings."),
    "failures": ("counter", "Looks that a server did not answer or refused."),
    "starts": ("counter", "Runs that were asked for."),
    "retrainings": ("gauge", "Retrainings at the last look."),
    "leads": ("gauge", "Whether this process leads."),
}


class Health:
    """Counts of a process, and when it last looked."""

    def __init__(self) -> None:
        self.values: Counter[str] = Counter()
        self._looked = time.monotonic()

    def looked(self, retrainings: int) -> None:
        self._looked = time.monotonic()
        self.values["looks"] += 1
        self.values["retrainings"] = retrainings

    def alive(self) -> None:
        """It waits on purpose."""
        self._looked = time.monotonic()

    @property
    def is_good(self) -> bool:
        return not self.values["leads"] or time.monotonic() - self._looked < SILENT_SECONDS

    def metrics(self) -> str:
        """In the text format of Prometheus."""
        lines = []
        for name, (kind, text) in HELP.items():
            full = f"cosyflow_retraining_{name}{'_total' if kind == 'counter' else ''}"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}", f"{full} {self.values[name]}"]
        return "\n".join(lines) + "\n"


@contextmanager
def serving(health: Health, port: int = PORT) -> Iterator[int]:
    """Answers until the `with` body ends. Gives the port; 0 asks for a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._send(200, health.metrics())
            elif self.path == "/healthz":
                self._send(200, "ok\n") if health.is_good else self._send(503, "it has not looked for too long\n")
            else:
                self._send(404, "/healthz or /metrics\n")

        def _send(self, status: int, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a probe comes every few seconds."""

    httpd = ThreadingHTTPServer(("", port), Handler)
    httpd.daemon_threads = True
    threading.Thread(target=httpd.serve_forever, name="health", daemon=True).start()
    try:
        yield httpd.server_port
    finally:
        httpd.shutdown()
        httpd.server_close()
