"""Submitting: what a Kubeflow Pipelines server is sent, told by a server that answers like its API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipelines.__main__ import main

EXPERIMENT = {"experiment_id": "e-1", "display_name": "voices", "namespace": "team-a"}


@dataclass
class Server:
    url: str = ""
    refuse: bool = False
    requests: list[tuple[str, str, str | None, Any]] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Answers the v2beta1 API just enough for an experiment and a run, and keeps what it was asked."""
    for name in ("KFP_HOST", "KFP_NAMESPACE", "KFP_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            path = self.path.split("?")[0]
            state.requests.append((self.command, path, self.headers.get("Authorization"), body))
            if state.refuse:
                self._send(403, {"error": "team-a is not yours"})
            elif path.endswith("/runs"):
                self._send(200, {"run_id": "r-1", "display_name": body["display_name"]})
            elif path.endswith("/experiments") and self.command == "GET":
                self._send(200, {"experiments": [EXPERIMENT]})
            else:
                self._send(200, {"multi_user": True})

        do_GET = do_POST = _answer  # noqa: N815

        def _send(self, status: int, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{httpd.server_port}"
    yield state
    httpd.shutdown()
    httpd.server_close()


def submit(server: Server, *options: str) -> int:
    places = ["--host", server.url, "--namespace", "team-a", "--kfp-experiment", "voices"]
    return main(["submit", *places, "--data-root", "s3://bucket/data", *options])


def test_a_run_is_created_with_the_parameters_in_their_types(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KFP_TOKEN", "secret-token")
    assert submit(server, "--gpus-per-node", "8", "--train-subsets", "mine", "--no-use-amp", "--run-name", "first") == 0
    (run,) = [body for method, path, _, body in server.requests if (method, path.endswith("/runs")) == ("POST", True)]
    assert run["display_name"] == "first"
    assert run["experiment_id"] == "e-1"
    parameters = run["runtime_config"]["parameters"]
    assert parameters["data_root"] == "s3://bucket/data"
    assert parameters["gpus_per_node"] == 8
    assert parameters["train_subsets"] == ["mine"]
    assert parameters["use_amp"] is False
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "cosyvoice"
    assert "kubernetes" in run["pipeline_spec"]["platform_spec"]["platforms"]
    assert {token for _, _, token, _ in server.requests} == {"Bearer secret-token"}
    assert capsys.readouterr().out.splitlines()[-1] == f"{server.url}/#/runs/details/r-1"


def test_a_refusal_is_one_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.refuse = True
    assert submit(server) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "refused with status 403" in error
    assert "team-a is not yours" in error


def test_no_server_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--host", "http://127.0.0.1:9", "--data-root", "s3://bucket/data"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "http://127.0.0.1:9: no answer from a Kubeflow Pipelines server" in error
