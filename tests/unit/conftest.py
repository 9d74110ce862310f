"""A store for the tests: a folder, and an S3 server in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.disks import mounted

BUCKET = "cosyflow-test"


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("s3") / "server.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "tests.unit.s3_server", str(port)]
        server = subprocess.Popen(command, stdout=output, stderr=output)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _create_bucket(endpoint, server, log)
        yield endpoint
    finally:
        server.terminate()
        server.wait(10)


def _create_bucket(endpoint: str, server: subprocess.Popen[bytes], log: Path) -> None:
    request = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")
    for _ in range(300):
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"the S3 server does not answer: {log.read_text()}")


@pytest.fixture
def s3_folder(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty prefix on the server, with the environment that leads there."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "COSYFLOW_S3"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret-key")
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "local" else str(request.getfixturevalue("s3_folder"))


@pytest.fixture
def s3_overwriting(s3_folder: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The store of `s3_folder` by an address at which it knows no conditional writes, as older stores do."""
    from cosyflow import storage

    monkeypatch.setattr(storage, "_bucket_creates_once", storage._bucket_creates_once.__wrapped__)
    address = s3_endpoint.replace("127.0.0.1", "localhost")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", address)
    return address


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own, which a test may fill."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted(folder) as is_mounted:
        if not is_mounted:
            pytest.skip("only root may mount the small file system that this test fills")
        yield folder
