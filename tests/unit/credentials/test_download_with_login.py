"""Archives behind a login or a signature are fetched with it, and no other server gets it."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cosyflow.cli import main
from cosyflow.corpus import http
from cosyflow.credentials import Login, withdraw
from cosyflow.errors import CosyFlowError

LOGIN = Login("reader", "hush/hush")
SIGNATURE = "X-Amz-Credential=id&X-Amz-Signature=hushhush"


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    folder = tmp_path / "archives"
    folder.mkdir()
    with tarfile.open(folder / "dev-clean.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("LibriTTS/dev-clean/1/2/1_2_3.wav")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"wave"))
    digest = hashlib.md5((folder / "dev-clean.tar.gz").read_bytes(), usedforsecurity=False).hexdigest()
    (folder / "md5sum.txt").write_text(f"{digest}  dev-clean.tar.gz\n")
    return folder


def with_login(url: str) -> str:
    return url.replace("://", "://reader:hush%2Fhush@")


@pytest.mark.parametrize("way", ["address", "file", "netrc"])
def test_a_subset_behind_a_login(
    archives: Path,
    tmp_path: Path,
    way: str,
    serve_guarded: Callable,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url, _ = serve_guarded(archives, login=LOGIN.header)
    given = with_login(url) if way == "address" else url
    file = tmp_path / way
    file.write_text(f"machine 127.0.0.1 login {LOGIN.user} password {LOGIN.password}\n")
    if way == "file":
        monkeypatch.setenv("COSYFLOW_CREDENTIALS", str(file))
    output = tmp_path / "speech"
    assert main(["download", "--part", "dev-clean", "--data_url", given, "--output_dir", str(output)]) == 0
    assert (output / "LibriTTS/dev-clean/1/2/1_2_3.wav").read_bytes() == b"wave"
    left = "".join(path.read_text() for path in output.rglob("*") if path.is_file())
    assert url in left
    shown = capsys.readouterr()
    assert "hush" not in left + shown.out + shown.err


def test_a_signature_of_the_folder_goes_with_each_file(
    archives: Path, tmp_path: Path, serve_guarded: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = serve_guarded(archives, signature=SIGNATURE)
    words = ["download", "--part", "dev-clean", "--output_dir", str(tmp_path / "speech"), "--data_url"]
    assert main([*words, f"{url}?{SIGNATURE}"]) == 0
    left = "".join(path.read_text() for path in (tmp_path / "speech").rglob("*") if path.is_file())
    shown = capsys.readouterr()
    assert "hush" not in left + shown.out + shown.err


def test_a_signed_address_of_the_archive_itself(archives: Path, tmp_path: Path, serve_guarded: Callable) -> None:
    url, _ = serve_guarded(archives, signature=SIGNATURE)
    digest = hashlib.sha256((archives / "dev-clean.tar.gz").read_bytes()).hexdigest()
    words = ["download", "--part", "dev-clean", "--output_dir", str(tmp_path / "speech"), "--checksum", digest]
    assert main([*words, "--data_url", f"{url}/dev-clean.tar.gz?{SIGNATURE}"]) == 0


def test_without_the_login_the_error_says_where_it_belongs(
    archives: Path, tmp_path: Path, serve_guarded: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = serve_guarded(archives, login=LOGIN.header)
    words = ["download", "--part", "dev-clean", "--output_dir", str(tmp_path / "speech"), "--data_url"]
    assert main([*words, url.replace("://", "://reader:hush-wrong@")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "HTTP 401" in line
    assert "COSYFLOW_CREDENTIALS" in line
    assert "hush" not in line


def test_another_server_gets_neither_login_nor_signature(
    archives: Path, tmp_path: Path, serve_guarded: Callable
) -> None:
    other, seen_by_other = serve_guarded(archives)
    url, seen = serve_guarded(archives, login=LOGIN.header, elsewhere=other)
    withdraw(f"{with_login(url)}/moved?{SIGNATURE}")
    http.fetch(f"{url}/moved/dev-clean.tar.gz", tmp_path / "part", "test")
    assert seen.seen == [(f"/moved/dev-clean.tar.gz?{SIGNATURE}", LOGIN.header)]
    assert seen_by_other.seen == [("/dev-clean.tar.gz", "")]
    assert http.content_length(f"{url}/moved/dev-clean.tar.gz") == (archives / "dev-clean.tar.gz").stat().st_size
    assert {authorization for _, authorization in seen_by_other.seen} == {""}


def test_the_same_server_gets_the_login_again(archives: Path, tmp_path: Path, serve_guarded: Callable) -> None:
    url, handler = serve_guarded(archives, login=LOGIN.header)
    handler.elsewhere = url
    withdraw(with_login(url))
    http.fetch(f"{url}/moved/dev-clean.tar.gz", tmp_path / "part", "test")
    assert [authorization for _, authorization in handler.seen] == [LOGIN.header] * 2


def test_a_refused_address_is_named_without_its_signature(
    archives: Path, tmp_path: Path, serve_guarded: Callable
) -> None:
    url, _ = serve_guarded(archives, signature="other")
    with pytest.raises(CosyFlowError, match="HTTP 403") as caught:
        http.fetch(f"{withdraw(f'{url}?{SIGNATURE}')}/dev-clean.tar.gz", tmp_path / "part", "test")
    assert "hush" not in str(caught.value)
    assert "hush" in os.environ["COSYFLOW_WITHDRAWN"]
