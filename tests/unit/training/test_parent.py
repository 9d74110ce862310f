"""The first rank asks a real TLS server for the Workflow that its training is a step of."""

from __future__ import annotations

import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cosyflow.training.parent import Parent, watching_parent

pytestmark = pytest.mark.medium

PARENT = Parent("/apis/argoproj.io/v1alpha1/namespaces/team-a/workflows/cosyvoice-x7k2p", "0123")
WORKFLOW = {"metadata": {"uid": "0123"}, "spec": {}, "status": {"phase": "Running"}}
GONE = {"kind": "Status", "code": 404, "details": {"name": "cosyvoice-x7k2p", "kind": "workflows"}}
STARTING = "404 page not found"
"""What a server says that does not know the kind of object yet."""
LONG = 0.5
Answer = tuple[int, Any]


class ApiServer(ThreadingHTTPServer):
    """Answers what `answer` says, to whoever shows the right token."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: Answer = (200, WORKFLOW)
        self.token = "first"  # noqa: S105
        self.asked: list[tuple[str, int]] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate(folder))
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not trust the certificate is no trouble."""


class Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        may = self.headers["Authorization"] == f"Bearer {self.server.token}"
        status, body = self.server.answer if may else (401, {})
        self.server.asked.append((self.path, status))
        self.send_response(status)
        self.end_headers()
        self.wfile.write((body if isinstance(body, str) else json.dumps(body)).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what was asked is in ApiServer.asked."""


def certificate(folder: Path) -> Path:
    """Makes a key with a certificate for 127.0.0.1, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "api")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / "ca.crt"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*form))
    return path


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    (tmp_path / "token").write_text("first")
    server = ApiServer(tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


class Watch:
    """What a training was told while it asked every 50 ms."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def reason(self) -> str:
        """Waits for the only reason."""
        wait_for(lambda: bool(self.reasons))
        (reason,) = self.reasons
        return reason


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.fixture
def watch(api: ApiServer, tmp_path: Path) -> Iterator[Watch]:
    watch = Watch()
    with watching_parent(PARENT.to_variable(), watch.reasons.append, tmp_path, interval_seconds=0.05):
        wait_for(lambda: len(api.asked) > 1)
        assert not watch.reasons
        yield watch


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, WORKFLOW | {"spec": {"activeDeadlineSeconds": 0}}), "was terminated"),
        ((200, WORKFLOW | {"spec": {"shutdown": "Stop"}}), "was terminated"),
        ((200, WORKFLOW | {"status": {"phase": "Failed"}}), "has ended (Failed)"),
        ((200, WORKFLOW | {"metadata": {"uid": "0123", "deletionTimestamp": "2026-01-01T00:00:00Z"}}), "was deleted"),
        ((200, WORKFLOW | {"metadata": {"uid": "another"}}), "was deleted"),
        ((404, GONE), "was deleted"),
    ],
    ids=["deadline", "shutdown", "phase", "being-deleted", "another", "gone"],
)
def test_the_end_of_the_parent_is_told_once(api: ApiServer, watch: Watch, answer: Answer, reason: str) -> None:
    api.answer = answer
    assert watch.reason() == f"workflows/cosyvoice-x7k2p {reason}"
    asked = len(api.asked)
    time.sleep(0.2)
    assert len(api.asked) == asked
    assert {path for path, _ in api.asked} == {PARENT.path}


@pytest.mark.parametrize(
    "answer",
    [
        (503, {}),
        (404, STARTING),
        (200, "half an ans"),
        (200, WORKFLOW | {"spec": {"activeDeadlineSeconds": 3600}}),
        (200, WORKFLOW | {"status": {}}),
    ],
    ids=["down", "starting", "cut", "deadline", "new"],
)
def test_what_cannot_be_known_ends_nothing(api: ApiServer, watch: Watch, answer: Answer) -> None:
    api.answer = answer
    time.sleep(LONG)
    assert not watch.reasons
    api.answer = (404, GONE)
    assert watch.reason()


def test_a_server_that_is_down_or_not_the_clusters_ends_nothing(
    api: ApiServer, watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.shutdown()
    api.server_close()
    time.sleep(LONG)
    (tmp_path / "other").mkdir()
    impostor = ApiServer(tmp_path / "other")
    impostor.answer = (404, GONE)
    threading.Thread(target=impostor.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(impostor.server_port))
    time.sleep(LONG)
    impostor.shutdown()
    impostor.server_close()
    assert not watch.reasons
    assert not impostor.asked


def test_who_may_not_ask_says_so_once_and_asks_on(
    api: ApiServer, watch: Watch, capfd: pytest.CaptureFixture[str]
) -> None:
    api.answer = (403, {"message": "forbidden"})
    time.sleep(LONG)
    api.answer = (404, GONE)
    assert watch.reason()
    said = capfd.readouterr().out
    assert said.count("cannot ask for workflows/cosyvoice-x7k2p: the API server answers 403") == 1
    assert "a stop is noticed by the heartbeat alone" in said


def test_a_new_token_is_read(api: ApiServer, watch: Watch, tmp_path: Path) -> None:
    api.token = "second"  # noqa: S105
    wait_for(lambda: api.asked[-1][1] == 401)
    (tmp_path / "token").write_text("second")
    wait_for(lambda: api.asked[-1][1] == 200)
    api.answer = (404, GONE)
    assert watch.reason()


def test_without_a_token_it_is_said_and_nothing_ends(
    api: ApiServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").unlink()
    with watching_parent(PARENT.to_variable(), pytest.fail, tmp_path, interval_seconds=0.05):
        time.sleep(LONG)
    assert capfd.readouterr().out.count("token is not there") == 1


def test_without_a_parent_nobody_asks() -> None:
    with watching_parent("", pytest.fail):
        assert not [thread for thread in threading.enumerate() if thread.name == "parent"]
