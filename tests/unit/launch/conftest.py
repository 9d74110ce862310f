"""A fake cluster with the environment that leads there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.launch.fake_api import FakeCluster, Server


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(server.kubeconfig())
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    try:
        yield server.cluster
    finally:
        server.cluster.closed = True
        server.shutdown()
        server.server_close()
        thread.join(5)
