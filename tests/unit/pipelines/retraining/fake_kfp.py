"""A Kubeflow Pipelines server over HTTP that pages, refuses, is away, is slow, and loses answers when it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

PAGE = 2
LOST, SLOW = "lost", "slow"


@dataclass
class Kfp:
    """Answers the v2beta1 API as far as runs of Retrainings need it.

    Attributes:
        faults: what the next requests that make a run get: a status; "lost", which accepts the run and says nothing; or
            "slow", which accepts it and answers after `delay`.
        away: how many requests are answered with 503 first.
        refuses: the status that every request gets; 0 for none.
        ends: the state in which a run ends when it is asked for.
        ends_unseen: whether a run ends by itself just before it is to be ended.
        token: that every request must bring; "" for none.
        now: of its clock.
    """

    url: str = ""
    runs: list[dict[str, Any]] = field(default_factory=list)
    pipelines: list[dict[str, Any]] = field(default_factory=list)
    versions: list[dict[str, Any]] = field(default_factory=list)
    experiments: list[dict[str, Any]] = field(default_factory=list)
    faults: list[int | str] = field(default_factory=list)
    away: int = 0
    refuses: int = 0
    delay: float = 0.5
    ends: str = "SUCCEEDED"
    ends_unseen: bool = False
    ended: list[str] = field(default_factory=list)
    token: str = ""
    requests: int = 0
    now: Callable[[], datetime] = lambda: datetime(2026, 3, 1, 12, tzinfo=UTC)

    def made(self, body: dict[str, Any]) -> dict[str, Any]:
        number = len(self.runs) + 1
        run = {**body, "run_id": f"run-{number}", "state": "RUNNING", "created_at": f"{self.now():%FT%TZ}"}
        assert body["pipeline_version_reference"]["pipeline_version_id"] in [one["name"] for one in self.versions]
        self.runs.append(run)
        return run

    def run(self, name: str) -> dict[str, Any]:
        (run,) = [run for run in self.runs if run["run_id"] == name]
        return run

    def end(self, name: str, state: str, error: str = "") -> None:
        self.run(name).update(state=state, finished_at=f"{self.now():%FT%TZ}")
        if error:
            self.run(name)["error"] = {"code": 2, "message": error}


def _page(entries: list[dict[str, Any]], key: str, query: dict[str, list[str]]) -> dict[str, Any]:
    (predicate,) = json.loads(query["filter"][0])["predicates"] if "filter" in query else [None]
    if predicate:
        value, equal = predicate["stringValue"], predicate["operation"] == "EQUALS"
        name = predicate["key"]
        entries = [one for one in entries if (one.get(name, "") == value if equal else value in one.get(name, ""))]
    first = int(query.get("page_token", ["0"])[0] or 0)
    last = first + PAGE
    return {key: entries[first:last], "next_page_token": str(last) if last < len(entries) else ""}


class _Handler(BaseHTTPRequestHandler):
    kfp: Kfp

    def _answer(self) -> None:
        kfp, url = self.kfp, urlsplit(self.path)
        kfp.requests += 1
        query = parse_qs(url.query)
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length) if length else b""
        path = url.path.removeprefix("/apis/v2beta1")
        if kfp.away:
            kfp.away -= 1
            self._send(503, {"error": "not ready"})
        elif kfp.refuses or (kfp.token and self.headers.get("Authorization") != f"Bearer {kfp.token}"):
            self._send(kfp.refuses or 401, {"error": "no"})
        elif self.command == "POST":
            self._post(path, query, data)
        elif path == "/runs":
            self._send(200, _page(kfp.runs, "runs", query))
        elif path.startswith("/runs/"):
            run = kfp.run(path.rpartition("/")[2])
            if kfp.ends:
                run["state"] = kfp.ends
            self._send(200, run)
        elif path == "/experiments":
            self._send(200, _page(kfp.experiments, "experiments", query))
        elif path == "/pipelines":
            self._send(200, _page(kfp.pipelines, "pipelines", query))
        elif path.endswith("/versions"):
            self._send(200, _page(kfp.versions, "pipeline_versions", query))
        else:
            self._send(404, {"error": path})

    do_GET = do_POST = _answer  # noqa: N815

    def _post(self, path: str, query: dict[str, list[str]], data: bytes) -> None:
        kfp = self.kfp
        if path.endswith(":terminate"):
            name = path.rpartition("/")[2].partition(":")[0]
            if kfp.ends_unseen:
                kfp.end(name, "SUCCEEDED")
            if kfp.run(name)["state"] != "RUNNING":
                self._send(400, {"error": "no run that works"})
                return
            kfp.ended.append(name)
            kfp.end(name, "CANCELED")
            self._send(200, {})
        elif path == "/runs":
            self._make(json.loads(data))
        elif path == "/experiments":
            made = {**json.loads(data), "experiment_id": f"e-{len(kfp.experiments)}"}
            kfp.experiments.append(made)
            self._send(200, made)
        elif path == "/pipelines":
            made = {**json.loads(data), "pipeline_id": f"p-{len(kfp.pipelines)}"}
            kfp.pipelines.append(made)
            self._send(200, made)
        elif path == "/pipelines/upload_version":
            (name,) = query["name"]
            if any(one["name"] == name for one in kfp.versions):
                self._send(409, {"error": "already exists"})
                return
            assert b"pipelineInfo" in data
            made = {"name": name, "pipeline_version_id": name, "pipeline_id": query["pipelineid"][0]}
            kfp.versions.append(made)
            self._send(200, made)
        else:
            self._send(404, {"error": path})

    def _make(self, body: dict[str, Any]) -> None:
        fault = self.kfp.faults.pop(0) if self.kfp.faults else None
        if isinstance(fault, int):
            self._send(fault, {"error": "no"})
            return
        run = self.kfp.made(body)
        if fault == SLOW:
            time.sleep(self.kfp.delay)
        if fault == LOST:
            self.close_connection = True
            self.connection.close()
        else:
            self._send(200, run)

    def _send(self, status: int, content: Any) -> None:
        data = json.dumps(content).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:  # who asked waits no longer
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def serving(state: Kfp) -> Iterator[Kfp]:
    """Serves it until the `with` body ends."""
    handler = type("Handler", (_Handler,), {"kfp": state})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
    state.url = f"http://127.0.0.1:{httpd.server_port}"
    try:
        yield state
    finally:
        httpd.shutdown()
        httpd.server_close()
