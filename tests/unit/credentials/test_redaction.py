"""No secret leaves in a text, whatever its form; and all else stays as it is."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow.errors import CosyFlowError, Problem, RefusalError
from cosyflow.redaction import SECRET, VARIABLES, guarded, redact
from tests.unit.packages import CHECKOUT

PASSWORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=4).filter(
    lambda text: not set(text) & set("/?#@'\"<>\\:")
)
WORDS = st.lists(st.sampled_from(["one", "http://host:80/a", "b=c", "s3://bucket/key", "/data/x", "@", "a@b.c"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at http://user:hush@host:5000/x: 401", "at http://<secret>@host:5000/x: 401"),
        ("at https://hush@host/x", "at https://<secret>@host/x"),
        ("postgresql://user:hu@sh@host/db", "postgresql://<secret>@host/db"),
        ("postgresql://user@host/db", "postgresql://user@host/db"),
        ("s3://KEY:hu/sh+1@bucket/x", "s3://<secret>@bucket/x"),
        ("http://h/a?X-Amz-Signature=hush&b=1", "http://h/a?X-Amz-Signature=<secret>&b=1"),
        ("http://h/a?se=1&sig=hush%3D", "http://h/a?se=1&sig=<secret>"),
        ("http://h/a?access_token=hush", "http://h/a?access_token=<secret>"),
        ("{'Authorization': 'Basic aHVzaA=='}", "{'Authorization': 'Basic <secret>'}"),
        ("Authorization: Bearer hush", "Authorization: Bearer <secret>"),
        ("http://host:8080/a@b, step=3, key=4, user@host", "http://host:8080/a@b, step=3, key=4, user@host"),
    ],
)
def test_a_secret_is_known_by_its_form(text: str, expected: str) -> None:
    assert redact(text) == expected


@given(before=WORDS, password=PASSWORDS, after=WORDS)
def test_a_password_in_an_address_never_stays_and_the_rest_does(
    before: list[str], password: str, after: list[str]
) -> None:
    words = [*before, f"http://user:{password}@host/path", *after]
    assert redact(" ".join(words)).split() == [*before, f"http://{SECRET}@host/path", *after]


@pytest.mark.parametrize("name", VARIABLES)
def test_the_value_of_a_variable_is_replaced_by_its_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, 'hush/"hush"+hush')
    for spelled in ('hush/"hush"+hush', json.dumps('hush/"hush"+hush'), "hush%2F%22hush%22%2Bhush"):
        assert redact(f"key {spelled} end") == f"key {spelled.replace(spelled.strip(chr(34)), f'<{name}>')} end"


def test_a_short_value_is_replaced_as_a_word_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    assert redact("test: /tests/latest") == "<AWS_SECRET_ACCESS_KEY>: /tests/latest"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "minio")  # no secret, and part of many addresses
    assert redact("http://minio:9000") == "http://minio:9000"


def test_errors_are_redacted_when_they_are_made() -> None:
    assert str(CosyFlowError("http://u:hush@h: no answer")) == "http://<secret>@h: no answer"
    (line,) = RefusalError([Problem("mlflow_uri", "http://u:hush@h: no answer; start it")]).lines
    assert line == "error: mlflow_uri: http://<secret>@h: no answer; start it"


def test_a_guarded_stream_holds_nothing_back() -> None:
    stream = io.StringIO()
    output = guarded(stream)
    output.write("at http://u:hush@h")
    assert stream.getvalue() == "at http://<secret>@h"
    print("no end", end="", file=output)
    assert stream.getvalue().endswith("no end")
    assert guarded(output) is output


@pytest.mark.medium
def test_whatever_a_process_prints_is_redacted() -> None:
    program = """
import logging, sys, threading, warnings
from cosyflow.credentials import protect
protect()
print("printed", sys.argv[1])
sys.stdout.writelines(["lines ", sys.argv[1], chr(10)])
logging.warning("logged %s", sys.argv[1])
warnings.warn("warned " + sys.argv[1])
thread = threading.Thread(target=lambda: 1 / 0 if not sys.argv[1] else int(sys.argv[1]))
thread.start()
thread.join()
raise ValueError(sys.argv[1])
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, "http://u:hush@host"], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    shown = ended.stdout + ended.stderr
    assert ended.returncode == 1
    assert "hush" not in shown
    for text in ("printed http://", "lines http://", "logged http://", "warned http://", "ValueError: http://"):
        assert text + "<secret>@host" in shown
    assert "ValueError: invalid literal" in ended.stderr
