"""The gate's verdicts from a registry over HTTP, and when a Retraining that waits for a promotion is ready."""

from __future__ import annotations

import ast
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from pipelines.retraining.decision import SUCCEEDED, Action, Observed, What
from pipelines.retraining.model import Spec
from pipelines.retraining.registry import CHAMPION, GATE_TAG, Verdict, verdicts
from pipelines.retraining.status import Found, Kind, headline

CHECKOUT = Path(__file__).resolve().parents[4]
VERSION = "cosyvoice2-llm version 3"
LOGIN = base64.b64encode(b"reader:word").decode()


@contextmanager
def registry(champion: bool, outcome: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            good = self.headers.get("Authorization") == f"Basic {LOGIN}" and query["name"] == ["cosyvoice2-llm"]
            found = {
                "version": query["version"][0],
                "aliases": [CHAMPION] if champion else [],
                "tags": [{"key": GATE_TAG, "value": outcome}] if outcome else [],
            }
            data = json.dumps({"model_version": found}).encode()
            self.send_response(200 if good else 401)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()


@pytest.mark.parametrize(
    ("champion", "outcome", "kind", "reason"),
    [
        (True, "promote", Kind.READY, "Promoted"),
        (False, "refuse", Kind.STALLED, "NotPromoted"),
        (False, "", Kind.RECONCILING, "AwaitsPromotion"),
    ],
)
def test_it_is_ready_when_the_gate_has_made_it_champion(
    champion: bool, outcome: str, kind: Kind, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "reader")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "word")
    with registry(champion, outcome) as address:
        found = verdicts(address, [VERSION])
    assert found == (Verdict(VERSION, champion, outcome),)
    told = headline(promoted(found), {})
    assert (told.kind, told.reason) == (kind, reason)


def test_a_registry_that_is_away_is_waited_for_and_nothing_registered_is_a_mistake() -> None:
    assert verdicts("http://127.0.0.1:9", [VERSION]) is None
    assert headline(promoted(None), {}).reason == "AwaitsPromotion"
    assert headline(promoted(()), {}).kind is Kind.STALLED


def promoted(found: tuple[Verdict, ...] | None) -> Found:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    spec = Spec.model_validate({"run": {}, "healthyWhen": "promoted"})
    run = Observed("run-1", "voice", "c", 0, SUCCEEDED, moment, moment)
    return Found(1, spec, "c", action=Action("voice", What.NONE, "c", ""), runs=[run], verdicts=found)


@pytest.mark.parametrize(
    ("file", "name", "value"), [("promotion.py", "OUTCOME_TAG", GATE_TAG), ("rows.py", "CHAMPION", CHAMPION)]
)
def test_the_names_are_those_of_the_gate(file: str, name: str, value: str) -> None:
    """Read, as importing the gate takes seconds."""
    source = (CHECKOUT / "cosyflow" / "evaluation" / file).read_text(encoding="utf-8")
    found = {}
    for node in ast.parse(source).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Tuple)
            and isinstance(node.value, ast.Tuple)
        ):
            names = [target.id for target in node.targets[0].elts if isinstance(target, ast.Name)]
            found |= dict(zip(names, map(ast.unparse, node.value.elts), strict=True))
    assert found[name] == repr(value)
