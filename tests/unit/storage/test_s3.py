"""What only a store can do wrong: outages, refusals and badly set environments."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from cosyflow import storage
from cosyflow.errors import CosyFlowError, StoreError
from cosyflow.storage import patience


class FlakyProxy(socketserver.BaseRequestHandler):
    """Hangs up on the first `failures` connections, then hands bytes on to the real server and back."""

    upstream = ("", 0)
    failures = 0
    connections = 0

    def handle(self) -> None:
        cls = type(self)
        cls.connections += 1
        if cls.connections <= cls.failures:
            return
        with socket.create_connection(cls.upstream) as server:
            threading.Thread(target=_relay, args=(server, self.request), daemon=True).start()
            _relay(self.request, server)


def _relay(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def flaky(s3_folder: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FlakyProxy]]:
    host, port = s3_endpoint.removeprefix("http://").split(":")
    handler = type("Handler", (FlakyProxy,), {"upstream": (host, int(port))})
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("COSYFLOW_S3_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    yield handler
    server.shutdown()
    server.socket.close()


@pytest.mark.medium
@pytest.mark.parametrize("failures", [1, 4])
def test_transient_failures_are_tried_again(s3_folder: str, flaky: type[FlakyProxy], failures: int) -> None:
    uri = storage.join(s3_folder, "file")
    flaky.failures = failures
    storage.write_text(uri, "text")
    assert flaky.connections > failures
    assert storage.read_text(uri) == "text"


@pytest.mark.medium
def test_an_outage_is_waited_out(
    s3_folder: str, flaky: type[FlakyProxy], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
    uri = storage.join(s3_folder, "file")
    flaky.failures = 2 * patience.ATTEMPTS
    with storage.impatient(), pytest.raises(CosyFlowError, match="ConnectionClosedError"):
        storage.write_text(uri, "text")
    flaky.connections = 0
    storage.write_text(uri, "text")
    assert storage.read_text(uri) == "text"
    assert "waits for the store" in caplog.text


@pytest.mark.medium
def test_a_misspelt_address_is_not_waited_for(
    s3_folder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("COSYFLOW_S3_ENDPOINT", "http://no-such-host.invalid:9000")
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
    with pytest.raises(CosyFlowError, match="cannot be resolved"):
        storage.exists(storage.join(s3_folder, "file"))
    assert "waits" not in caplog.text


@pytest.mark.medium
def test_an_outage_that_lasts_is_one_line_without_credentials(
    s3_folder: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COSYFLOW_S3_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(patience, "OUTAGE_SECONDS", 0.1)
    uri = storage.join(s3_folder, "file")
    with pytest.raises(CosyFlowError) as caught:
        storage.write_text(uri, "text")
    assert str(caught.value).startswith(f"{uri}: ")
    assert "\n" not in str(caught.value)
    assert "test-access-key" not in str(caught.value)
    assert "test-secret-key" not in str(caught.value)


def test_a_missing_bucket_is_named(s3_folder: str) -> None:
    with pytest.raises(CosyFlowError, match=r"s3://no-such-bucket/file"):
        storage.write_text("s3://no-such-bucket/file", "text")
    assert not storage.exists("s3://no-such-bucket/file")


def test_a_credential_in_a_message_is_replaced_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")

    def refuse() -> None:
        answer = {"Error": {"Code": "AccessDenied", "Message": "for key hush"}}
        raise ClientError({**answer, "ResponseMetadata": {"HTTPStatusCode": 403}}, "GetObject")

    expected = r"^s3://bucket/key: AccessDenied \(HTTP status 403\): for key <AWS_SECRET_ACCESS_KEY>; give "
    with pytest.raises(StoreError, match=expected):
        patience.retried("bucket/key", refuse)


@pytest.mark.parametrize("endpoint", ["minio:9000", "ftp://minio:9000", "http://user:pass@minio:9000"])
def test_an_endpoint_must_be_a_plain_url(s3_folder: str, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("COSYFLOW_S3_ENDPOINT", endpoint)
    with pytest.raises(CosyFlowError, match="COSYFLOW_S3_ENDPOINT must be a URL") as caught:
        storage.exists(s3_folder)
    assert "pass" not in str(caught.value)
