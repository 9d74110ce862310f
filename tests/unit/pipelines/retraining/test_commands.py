"""`diff` and `apply` against a server that pages, refuses, is away, and accepts a request whose answer is lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from pipelines.commands import main
from pipelines.retraining import commands

PAGE = 2


@dataclass
class Kfp:
    """Answers the v2beta1 API as far as runs of Retrainings need it.

    Attributes:
        faults: what the next requests that make a run get: a status, or "lost", which accepts the run and says nothing.
        away: how many requests are answered with 503 first.
        ends: the state in which a run ends when it is asked for.
    """

    url: str = ""
    runs: list[dict[str, Any]] = field(default_factory=list)
    faults: list[int | str] = field(default_factory=list)
    away: int = 0
    ends: str = "SUCCEEDED"
    ended: list[str] = field(default_factory=list)

    def listed(self, query: dict[str, list[str]]) -> dict[str, Any]:
        (predicate,) = json.loads(query["filter"][0])["predicates"]
        key, value = predicate["key"], predicate["stringValue"]
        equal = predicate["operation"] == "EQUALS"
        found = [run for run in self.runs if (run[key] == value if equal else value in run[key])]
        first = int(query.get("page_token", ["0"])[0] or 0)
        last = first + PAGE
        return {"runs": found[first:last], "next_page_token": str(last) if last < len(found) else ""}

    def made(self, body: dict[str, Any]) -> dict[str, Any]:
        number = len(self.runs) + 1
        run = {**body, "run_id": f"run-{number}", "state": "RUNNING", "created_at": f"2026-03-01T12:00:{number:02d}Z"}
        del run["pipeline_spec"]
        self.runs.append(run)
        return run

    def asked(self, name: str) -> dict[str, Any]:
        (run,) = [run for run in self.runs if run["run_id"] == name]
        run["state"] = self.ends
        return run


@pytest.fixture
def kfp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kfp]:
    state = Kfp()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            if state.away:
                state.away -= 1
                self._send(503, {"error": "not ready"})
            elif url.path.endswith(":terminate"):
                name = url.path.rpartition("/")[2].partition(":")[0]
                state.ended.append(name)
                state.asked(name)["state"] = "CANCELED"
                self._send(200, {})
            elif url.path.endswith("/runs") and self.command == "POST":
                self._make(body)
            elif url.path.endswith("/runs"):
                self._send(200, state.listed(parse_qs(url.query)))
            elif "/runs/" in url.path:
                self._send(200, state.asked(url.path.rpartition("/")[2]))
            elif url.path.endswith("/experiments"):
                self._send(200, {"experiments": [{"experiment_id": "e-1", "display_name": "cosyflow"}]})
            else:
                self._send(200, {"multi_user": False})

        do_GET = do_POST = _answer  # noqa: N815

        def _make(self, body: dict[str, Any]) -> None:
            fault = state.faults.pop(0) if state.faults else None
            if isinstance(fault, int):
                self._send(fault, {"error": "no"})
                return
            run = state.made(body)
            if fault == "lost":
                self.close_connection = True
                self.connection.close()
            else:
                self._send(200, run)

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
    monkeypatch.setattr(commands, "POLL_SECONDS", 0.01)
    yield state
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    path = tmp_path / "git" / "voice.yaml"
    declare(path)
    return path


def declare(path: Path, name: str = "voice", **spec: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    run = {"data_root": "s3://bucket/data", "recipe": "cosyvoice2.tiny", **spec.pop("run", {})}
    content = {
        "apiVersion": "cosyflow.dev/v1alpha1",
        "kind": "Retraining",
        "metadata": {"name": name},
        "spec": {"run": run, **spec},
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def command(name: str, path: Path, kfp: Kfp, *options: str) -> int:
    return main([name, str(path), "--host", kfp.url, "--format", "json", *options])


@pytest.mark.medium
def test_a_content_is_started_once_and_a_change_once_more(kfp: Kfp, declared: Path) -> None:
    assert command("diff", declared, kfp) == 3
    assert command("apply", declared, kfp) == 0
    assert command("apply", declared, kfp) == 0
    assert command("diff", declared, kfp) == 0
    assert len(kfp.runs) == 1
    kfp.runs[0]["state"] = "SUCCEEDED"
    declare(declared, run={"average_num": 2})
    for _ in range(2):
        assert command("apply", declared, kfp) == 0
    assert len(kfp.runs) == 2
    assert "average_num: 2" in kfp.runs[1]["runtime_config"]["parameters"]["run"]


@pytest.mark.medium
def test_a_lost_answer_a_server_that_is_away_and_pages_make_no_second_run(
    kfp: Kfp, declared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands.time, "sleep", lambda seconds: None)
    kfp.runs += [
        {"run_id": f"old-{number}", "display_name": "other", "description": "", "state": "SUCCEEDED",
         "created_at": "2026-02-01T00:00:00Z"}
        for number in range(3)
    ]  # fmt: skip
    kfp.faults, kfp.away = ["lost"], 2
    assert command("apply", declared, kfp) == 0
    assert command("apply", declared, kfp) == 0
    assert [run["run_id"] for run in kfp.runs[3:]] == ["run-4"]


@pytest.mark.medium
def test_a_refusal_is_told_with_its_status(kfp: Kfp, declared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kfp.faults = [403]
    assert command("apply", declared, kfp) == 1
    assert "status 403" in capsys.readouterr().err
    assert not kfp.runs


@pytest.mark.medium
def test_waiting_ends_as_the_run_does_and_starts_what_had_to_wait(kfp: Kfp, declared: Path) -> None:
    declare(declared.parent / "then.yaml", "then", run={"average_num": 3}, trigger={"after": "voice"})
    assert command("apply", declared.parent, kfp, "--wait") == 0
    assert [run["display_name"].split()[0] for run in kfp.runs] == ["voice", "then"]
    kfp.ends = "FAILED"
    declare(declared, run={"average_num": 4})
    assert command("apply", declared, kfp, "--wait") == 1
    assert command("apply", declared, kfp, "--wait") == 0  # it failed, and nobody asked for a repetition
    declare(declared, run={"average_num": 4}, retry=1)
    assert command("apply", declared, kfp, "--wait") == 1
    assert [run["display_name"][-2:] for run in kfp.runs] == ["r0", "r0", "r0", "r1"]


@pytest.mark.medium
def test_a_replaced_run_is_ended_first(kfp: Kfp, declared: Path) -> None:
    declare(declared, concurrency="Replace")
    command("apply", declared, kfp)
    declare(declared, concurrency="Replace", run={"average_num": 2})
    assert command("diff", declared, kfp) == 3
    command("apply", declared, kfp)
    assert kfp.ended == ["run-1"]
    assert len(kfp.runs) == 2


@pytest.mark.medium
def test_a_state_in_a_file_needs_no_server(declared: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text("{}", encoding="utf-8")
    options = ["diff", str(declared), "--state", str(state), "--format", "json"]
    assert main(options) == 3
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["retraining"], told["action"]) == ("voice", "start")
    known = {"id": "r-1", "retraining": "voice", "hash": told["hash"], "state": "succeeded"}
    state.write_text(json.dumps({"runs": [known]}), encoding="utf-8")
    assert main(options) == 0
    state.write_text(json.dumps({"runs": [{**known, "state": "green"}]}), encoding="utf-8")
    assert main(options) == 2
    assert "green" in capsys.readouterr().err


@pytest.mark.medium
def test_a_changed_recording_is_new_content(kfp: Kfp, declared: Path, tmp_path: Path) -> None:
    data = tmp_path / "speech" / "train"
    data.mkdir(parents=True)
    (data / "a.wav").write_bytes(b"0" * 100)
    declare(declared, run={"data_url": str(data.parent)})
    command("apply", declared, kfp)
    kfp.runs[0]["state"] = "SUCCEEDED"
    assert command("diff", declared, kfp) == 0
    (data / "a.wav").write_bytes(b"1" * 100)
    assert command("diff", declared, kfp) == 3
