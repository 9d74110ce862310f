"""Submitting: what a Kubeflow Pipelines server is sent, told by a server that answers like its API."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cosyflow.run.config import from_parameters, read_file
from pipelines.commands import main
from tests.unit.pipelines.graph import Graph

EXPERIMENT = {"experiment_id": "e-1", "display_name": "voices", "namespace": "team-a"}


@dataclass
class Server:
    url: str = ""
    refuse: bool = False
    requests: list[tuple[str, str, str | None, Any]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    """Answers the v2beta1 API just enough for an experiment and a run, and keeps what it was asked."""
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


def started(server: Server) -> Any:
    """The body of the one request that starts a run."""
    (run,) = [body for method, path, _, body in server.requests if (method, path.endswith("/runs")) == ("POST", True)]
    return run


@pytest.mark.medium
def test_a_run_is_created_with_all_its_settings(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KFP_TOKEN", "secret-token")
    options = ["--gpus-per-node", "8", "--train-subsets", "mine", "--no-use-amp", "--set", "train_conf.max_epoch=3"]
    assert submit(server, *options, "--run-name", "first") == 0
    run = started(server)
    assert run["display_name"] == "first"
    assert run["experiment_id"] == "e-1"
    assert run["runtime_config"]["parameters"].keys() == {"run"}
    given = from_parameters(read_file(run["runtime_config"]["parameters"]["run"]))
    assert (given.data_root, given.gpus_per_node, given.use_amp) == ("s3://bucket/data", 8, False)
    assert (given.train_subsets, given.overrides) == (("mine",), ("train_conf.max_epoch=3",))
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "cosyvoice"
    assert "kubernetes" in run["pipeline_spec"]["platform_spec"]["platforms"]
    assert {token for _, _, token, _ in server.requests} == {"Bearer secret-token"}
    assert capsys.readouterr().out == f"{server.url}/#/runs/details/r-1\n"


@pytest.mark.medium
def test_what_a_file_says_of_the_graph_is_compiled_in(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("recipe: cosyvoice3\nsubsets_at_once: 4\nresources: {merge: {memory_limit: 9Gi}}\n")
    assert submit(server, "--run", str(file)) == 0
    graph = Graph(started(server)["pipeline_spec"]["pipeline_spec"])
    assert graph.subsets_at_once == 4
    assert graph.container("merge")["resources"]["resourceMemoryLimit"] == "9Gi"


@pytest.mark.medium
def test_places_are_the_servers_own(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is that of a volume there; the folder in which the command is given says nothing about it."""
    monkeypatch.chdir(tmp_path)
    assert submit(server, "--reject-dir", "volume/rejects") == 0
    given = from_parameters(read_file(started(server)["runtime_config"]["parameters"]["run"]))
    assert (given.reject_dir, given.pretrained_dir) == ("volume/rejects", "pretrained_models/CosyVoice2-0.5B")


@pytest.mark.medium
def test_a_run_is_called_by_its_recipe_part_and_time(server: Server) -> None:
    assert submit(server, "--recipe", "cosyvoice2.tiny", "--model", "flow") == 0
    assert re.fullmatch(r"cosyvoice2\.tiny flow, \d{4}-\d\d-\d\d \d\d:\d\d", started(server)["display_name"])


@pytest.mark.medium
def test_the_page_is_told_where_people_see_it(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit(server, "--ui-url", "https://kfp.example/") == 0
    assert capsys.readouterr().out == "https://kfp.example/#/runs/details/r-1\n"


def test_an_impossible_setting_is_refused_before_the_server_is_asked(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit(server, "--average-num", "0", "--set", "start_stage=9") == 2
    settings = [line.split(": ")[:2] for line in capsys.readouterr().err.splitlines()]
    assert sorted(settings) == [["error", "average_num"], ["error", "start_stage"]]
    assert server.requests == []


@pytest.mark.medium
def test_a_refusal_is_one_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.refuse = True
    assert submit(server) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "refused with status 403" in error
    assert "team-a is not yours" in error


@pytest.mark.medium
def test_no_server_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "--host", "http://127.0.0.1:9", "--data-root", "s3://bucket/data"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "http://127.0.0.1:9: no answer from a Kubeflow Pipelines server" in error
