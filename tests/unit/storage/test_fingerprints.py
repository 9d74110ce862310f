"""What tells cheaply that a file has not changed, on a local folder and on a real S3 server."""

from __future__ import annotations

import http.server
import re
import threading
import urllib.request
from pathlib import Path

import pytest

from cosyflow import storage
from cosyflow.errors import CosyFlowError, OutageError, StoreError
from cosyflow.storage import Fingerprint, patience, s3


def test_fingerprints_of_one_level(folder: str) -> None:
    for name in ("a", "b/c"):
        storage.write_text(storage.join(folder, name), name)
    deep = storage.fingerprints(folder)
    assert list(deep) == ["a", "b/c"]
    assert storage.fingerprints(folder, deep=False) == {"a": deep["a"]}
    assert storage.fingerprint(storage.join(folder, "b/c")) == deep["b/c"]
    assert deep["b/c"].size == 3
    assert storage.fingerprints(storage.join(folder, "no such")) == {}


def test_unfinished_files_have_none(folder: str) -> None:
    with storage.open_write(storage.join(folder, "file")) as stream:
        stream.write(b"half")
        assert storage.fingerprints(folder) == {}
    assert list(storage.fingerprints(folder)) == ["file"]


def test_a_fingerprint_tells_the_time_of_change(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"bytes")
    status = file.stat()
    expected = Fingerprint(5, f"{status.st_ino} {status.st_mtime_ns}", status.st_ctime_ns)
    assert storage.fingerprint(str(file)) == expected


def test_a_tag_follows_the_content(s3_folder: str) -> None:
    uri = storage.join(s3_folder, "file")
    states = []
    for text in ("one", "two", "one"):
        storage.write_text(uri, text)
        states.append(storage.fingerprint(uri))
    assert states[0] == states[2] != states[1]


def test_keys_that_stand_for_folders_are_no_files(s3_folder: str, s3_endpoint: str) -> None:
    storage.write_text(storage.join(s3_folder, "a", "file"), "text")
    for key in ("a/", "empty/"):
        url = f"{s3_endpoint}/{s3_folder.removeprefix('s3://')}/{key}"
        urllib.request.urlopen(urllib.request.Request(url, method="PUT", data=b""), timeout=60).close()
    assert list(storage.fingerprints(s3_folder)) == ["a/file"]
    assert [file.path for file in storage.list_files(s3_folder)] == ["a/file"]
    assert list(storage.fingerprints(storage.join(s3_folder, "a"), deep=False)) == ["file"]


def test_more_objects_than_one_answer_holds(s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number:02d} ä+%" for number in range(12)]
    for name in names:
        storage.write_text(storage.join(s3_folder, name), name)
    original = s3._page
    monkeypatch.setattr(s3, "_page", lambda asked: original(asked | {"MaxKeys": 5}))
    assert list(storage.fingerprints(s3_folder)) == names


def test_a_missing_bucket_holds_nothing(s3_folder: str) -> None:
    assert storage.fingerprints("s3://no-such-bucket/prefix") == {}
    with pytest.raises(CosyFlowError, match=r"s3://no-such-bucket/file does not exist"):
        storage.fingerprint("s3://no-such-bucket/file")


@pytest.mark.medium
def test_an_outage_is_one_line(s3_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
    for endpoint, kind, words in (
        ("http://127.0.0.1:9", OutageError, "EndpointConnectionError"),
        ("http://no-such-host.invalid:9000", StoreError, "cannot be resolved"),
    ):
        monkeypatch.setenv("COSYFLOW_S3_ENDPOINT", endpoint)
        for ask in (storage.fingerprint, storage.fingerprints):
            with storage.impatient(), pytest.raises(CosyFlowError, match=rf"^{s3_folder}: .*{words}") as caught:
                ask(s3_folder)
            assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("status", "code", "words", "kind"),
    [
        (403, "AccessDenied", "AccessDenied (HTTP status 403)", StoreError),
        (403, "InvalidAccessKeyId", "InvalidAccessKeyId (HTTP status 403)", StoreError),
        (403, "SignatureDoesNotMatch", "SignatureDoesNotMatch (HTTP status 403)", StoreError),
        (503, "SlowDown", "SlowDown (HTTP status 503)", OutageError),
    ],
)
def test_a_refusal_is_told_as_elsewhere(
    s3_folder: str, monkeypatch: pytest.MonkeyPatch, status: int, code: str, words: str, kind: type[CosyFlowError]
) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)

    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("COSYFLOW_S3_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        with storage.impatient(), pytest.raises(CosyFlowError, match=re.escape(words)) as caught:
            storage.fingerprints(s3_folder)
        server.shutdown()
    assert type(caught.value) is kind
