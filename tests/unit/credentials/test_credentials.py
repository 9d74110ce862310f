"""An address that carries credentials is taken apart; who opens it gets them, and nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyflow import credentials, storage
from cosyflow.credentials import Login, carries_credentials, login_for, whole, with_query, withdraw
from cosyflow.errors import CosyFlowError, RefusalError
from cosyflow.redaction import WITHDRAWN_VARIABLE, redact
from tests.unit.packages import CHECKOUT

PRESIGNED = "https://host/speech?X-Amz-Credential=id&X-Amz-Signature=hushhush"


@pytest.mark.parametrize(
    ("address", "secret", "clean"),
    [
        ("http://user:hush@host:5000/a", "hush", "http://host:5000/a"),
        ("https://hush@host", "hush", "https://host"),
        ("https://hush:@host", "hush", "https://host"),
        ("http://user:hu/sh@host/a", "hu/sh", "http://host/a"),
        ("http://user:hu%2Fsh@host/a", "hu/sh", "http://host/a"),
        ("postgresql://user:hush@host:5432/db", "hush", "postgresql://user@host:5432/db"),
        (PRESIGNED, "hushhush", "https://host/speech"),
        ("corpus.data_url=http://user:hush@host/a", "hush", "corpus.data_url=http://host/a"),
        ("a: http://user:hush@host/a # b\nc: 1\n", "hush", "a: http://host/a # b\nc: 1\n"),
    ],
)
def test_the_clean_address_is_what_it_would_be_without_credentials(address: str, secret: str, clean: str) -> None:
    assert carries_credentials(address)
    assert withdraw(address) == clean
    assert withdraw(clean) == clean
    assert secret not in redact(f"the server says {secret}")


@pytest.mark.parametrize(
    "text",
    ["/data/a:b@c", "sqlite:////data/mlflow.db", "http://host:80/a@b?page=1", "postgresql://user@host/db", "a@b", ""],
)
def test_what_carries_nothing_stays_as_it_is(text: str) -> None:
    assert not carries_credentials(text)
    assert withdraw(text) == text


@pytest.mark.medium
@given(user=st.text(min_size=1), password=st.text(min_size=1))
def test_any_name_and_password_arrive_as_they_are(user: str, password: str) -> None:
    os.environ[WITHDRAWN_VARIABLE] = ""
    address = f"http://{quote(user, safe='')}:{quote(password, safe='')}@host:80/a"
    assert withdraw(address) == "http://host:80/a"
    assert login_for("http://host:80/b") == Login(user, password)
    assert whole("http://host:80/a") == address


def test_a_login_is_for_its_server_alone() -> None:
    withdraw("http://user:hush@host:80/a")
    assert login_for("http://host:80/else") == Login("user", "hush")
    for other in ("https://host:80/a", "http://host:81/a", "http://host.evil:80/a", "http://evil/?http://host:80/a"):
        assert login_for(other) is None


def test_a_signature_is_for_what_lies_below_its_address() -> None:
    clean = withdraw(PRESIGNED)
    query = PRESIGNED.partition("?")[2]
    assert with_query(f"{clean}/dev.tar.gz") == f"https://host/speech/dev.tar.gz?{query}"
    assert with_query(clean) == PRESIGNED
    assert with_query("https://host/speech2/dev.tar.gz") == "https://host/speech2/dev.tar.gz"


def test_logins_come_from_a_file_by_host_or_by_host_and_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "logins"
    file.write_text("machine host:81 login b password hush-b\nmachine host login a password hush-a\n"
                    "default login c password hush-c\n")  # fmt: skip
    monkeypatch.setenv("COSYFLOW_CREDENTIALS", str(file))
    assert login_for("http://host:81/x") == Login("b", "hush-b")
    assert login_for("https://host/x") == Login("a", "hush-a")
    assert login_for("https://other/x") is None
    assert "hush" not in redact("hush-a hush-b")


def test_the_netrc_file_is_read_where_no_other_names_the_host(tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine host\n  login a\n  password hush-netrc\n")
    assert login_for("https://host/x") == Login("a", "hush-netrc")


@pytest.mark.parametrize("content", [None, "machine host logn a hush"], ids=["absent", "not its form"])
def test_a_file_of_logins_that_cannot_be_read_is_named_without_its_content(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "logins"
    if content:
        file.write_text(content)
    monkeypatch.setenv("COSYFLOW_CREDENTIALS", str(file))
    with pytest.raises(CosyFlowError, match=str(file)) as caught:
        login_for("https://host/x")
    assert "hush" not in str(caught.value)


def test_a_store_takes_no_key_in_an_address() -> None:
    with pytest.raises(CosyFlowError, match=r"s3://bucket/x came with a key.*AWS_SECRET_ACCESS_KEY") as caught:
        storage.exists("s3://KEY:hush/hush@bucket/x")
    assert "hush" not in str(caught.value)
    with pytest.raises(RefusalError, match=r"^data_root: s3://bucket came with a key"):
        credentials.withdrawn_from({"data_root": "s3://KEY:hush@bucket"})


def test_settings_that_carry_credentials_are_refused_by_name() -> None:
    settings = {"mlflow_uri": "http://u:hush@h", "overrides": ["corpus.data_url=http://u:hush@h"], "recipe": "a"}
    with pytest.raises(RefusalError) as caught:
        credentials.refuse_carried(settings)
    assert [problem.setting for problem in caught.value.problems] == ["mlflow_uri", "overrides"]
    assert "cosyflow-logins" in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.medium
def test_a_child_process_knows_what_was_withdrawn() -> None:
    withdraw("http://user:hush@host/a")
    program = "from cosyflow.credentials import login_for; print(login_for('http://host/b').password[::-1])"
    ended = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "hsuh\n", ended.stderr


def test_the_tracking_servers_address_in_the_environment_is_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:hush@host")
    assert credentials.tracking_address() == "http://host"
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://host"
    assert login_for("http://host") == Login("user", "hush")
