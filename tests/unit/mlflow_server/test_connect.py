"""Each of MLflow's servers gets its own login."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cosyflow.credentials import Login, withdraw
from cosyflow.mlflow_server import authorization, connect
from cosyflow.redaction import WITHDRAWN_VARIABLE

OF_ENVIRONMENT, OF_FILE, OF_ADDRESS = Login("env", "hush-env"), Login("file", "hush-file"), Login("uri", "hush/uri")


class Recording(BaseHTTPRequestHandler):
    """Knows no experiment, and notes what it was sent."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Authorization", ""))
        body = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}).encode()
        self.send_response(404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def recording() -> Iterator[tuple[str, list[str]]]:
    handler = type("Handler", (Recording,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(WITHDRAWN_VARIABLE, "")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_the_addresss_login_counts_before_the_environments_and_that_before_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "http://host:5000"
    assert authorization(address) == ""
    (tmp_path / "netrc").write_text(f"machine host login {OF_FILE.user} password {OF_FILE.password}\n")
    assert authorization(address) == OF_FILE.header
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hush-token")
    assert authorization(address) == "Bearer hush-token"
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", OF_ENVIRONMENT.user)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", OF_ENVIRONMENT.password)
    assert authorization(address) == OF_ENVIRONMENT.header
    withdraw("http://uri:hush%2Furi@host:5000")
    assert authorization(address) == OF_ADDRESS.header


@pytest.mark.medium
def test_the_client_of_each_server_sends_its_own_login(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        (first, seen_by_first), (second, seen_by_second) = (stack.enter_context(recording()) for _ in range(2))
        withdraw(first.replace("://", "://uri:hush%2Furi@"))
        clients = [connect(first, MAX_RETRIES=0), connect(second, MAX_RETRIES=0)]
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", OF_ENVIRONMENT.user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", OF_ENVIRONMENT.password)
        for client in clients:
            assert client.get_experiment_by_name("any") is None
    assert set(seen_by_first) == {OF_ADDRESS.header}
    assert set(seen_by_second) == {OF_ENVIRONMENT.header}
