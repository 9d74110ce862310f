"""Servers that ask for a login, and an environment that knows none."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from cosyflow.redaction import WITHDRAWN_VARIABLE
from cosyflow.standins.server import RangeHandler


class Guarded(RangeHandler):
    """Serves to those who have the login or the signature; /moved/X leads to X on another server."""

    login = ""
    signature = ""
    elsewhere = ""
    seen: list[tuple[str, str]]

    def do_GET(self) -> None:  # noqa: N802
        path, _, query = self.path.partition("?")
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        if path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", f"{self.elsewhere}/{path.removeprefix('/moved/')}")
            self.end_headers()
        elif self.login and self.headers.get("Authorization") != self.login:
            self.send_error(401)
        elif self.signature and query != self.signature:
            self.send_error(403)
        else:
            super().do_GET()

    do_HEAD = do_GET  # noqa: N815


@contextmanager
def _serve(folder: Path, **settings: str) -> Iterator[tuple[str, type[Guarded]]]:
    handler = type("Handler", (Guarded,), {"seen": [], **settings})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def serve_guarded() -> Iterator[Callable[..., tuple[str, type[Guarded]]]]:
    """Starts a server: `serve_guarded(folder, login="Basic ...")`."""
    with ExitStack() as stack:
        yield lambda folder, **settings: stack.enter_context(_serve(folder, **settings))


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(WITHDRAWN_VARIABLE, "")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("COSYFLOW_CREDENTIALS", raising=False)
