"""A proxy before the S3 server of the tests, which answers chosen requests with a chosen fault."""

from __future__ import annotations

import http.client
import http.server
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

OPERATIONS = ("HEAD", "GET", "LIST", "PUT", "create upload", "upload part", "complete upload", "DELETE")
REFUSALS = {
    "AccessDenied": 403,
    "ExpiredToken": 400,
    "NoSuchKey": 404,
    "InternalError": 500,
    "SlowDown": 503,
}
DISTURBANCES = ("reset", "hang", "truncated", "altered")
FAULTS = (*REFUSALS, *DISTURBANCES)
LONGEST_HANG = 30.0
_DROPPED = ("connection", "transfer-encoding", "content-length", "server", "date")


def is_possible(operation: str, fault: str) -> bool:
    """Whether there are such answers: some have no body, and only objects have digests by which a change shows."""
    if fault == "altered":
        return operation == "GET"
    return fault != "truncated" or operation in ("GET", "LIST", "create upload", "complete upload")


@dataclass
class Plan:
    """Which requests fail, and how.

    Attributes:
        times: how many fail; those after them succeed.
        where: a pattern that the key, or the prefix of a listing, has to have somewhere.
        hit: how many have failed.
        also: further operations that fail so.
    """

    operation: str = ""
    fault: str = ""
    times: float = 0
    where: str = ""
    hit: int = 0
    also: tuple[str, ...] = ()
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)

    def takes(self, operation: str, place: str) -> bool:
        with self.lock:
            is_meant = operation in (self.operation, *self.also) and re.search(self.where, place)
            if not is_meant or self.hit >= self.times:
                return False
            self.hit += 1
            return True


def operation_of(method: str, query: dict[str, list[str]]) -> str:
    if method == "PUT":
        return "upload part" if "partNumber" in query else "PUT"
    if method == "POST":
        return "create upload" if "uploads" in query else "complete upload" if "uploadId" in query else "POST"
    if method == "GET" and "list-type" in query:
        return "LIST"
    return method


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream = ""
    plan = Plan()

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        operation = operation_of(self.command, query)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        place = query["prefix"][0] if operation == "LIST" and "prefix" in query else url.path
        fault = self.plan.fault if self.plan.takes(operation, place) else ""
        if fault in REFUSALS:
            self._refuse(fault)
            return
        status, headers, answer = self._forward(body)
        if fault == "hang":  # the request was done, its answer is lost
            self.plan.released.wait(LONGEST_HANG)
        if fault in ("hang", "reset"):
            self._reset()
            return
        if fault == "altered":
            answer = answer[: len(answer) // 2] + bytes([answer[len(answer) // 2] ^ 1]) + answer[len(answer) // 2 + 1 :]
        self._answer(status, headers, answer, len(answer) // 2 if fault == "truncated" else len(answer))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

    def _refuse(self, code: str) -> None:
        error = f"<Error><Code>{code}</Code><Message>as planned</Message></Error>".encode()
        body = b"" if self.command == "HEAD" else error
        self._answer(REFUSALS[code], {"Content-Type": "application/xml"}, body, len(body))

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            headers = dict(answer.getheaders())
            if self.command == "HEAD":
                return answer.status, headers, b""
            return answer.status, {k: v for k, v in headers.items() if k.lower() not in _DROPPED}, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes, sent: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:sent])
        if sent < len(body):
            self.close_connection = True

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has given up waiting is no news."""

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # without the farewell that would come before a reset


@contextmanager
def proxy(upstream: str) -> Iterator[tuple[str, Plan]]:
    """The address of a proxy before `http://HOST:PORT`, and the plan of what it does, which may be changed."""
    plan = Plan()
    handler = type("Handler", (_Handler,), {"upstream": upstream.removeprefix("http://"), "plan": plan})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", plan
    finally:
        plan.released.set()
        server.shutdown()
        server.server_close()
