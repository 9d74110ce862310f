"""Transfers that are cut, refused or repeated, against a real server on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from cosyflow.corpus import http
from cosyflow.errors import CosyFlowError
from cosyflow.standins.server import RangeHandler

CONTENT = bytes(range(256)) * 4000


class Unreliable(RangeHandler):
    """Answers the first requests with `statuses`, then sends `cuts[0]` bytes of the first answer, and so on."""

    statuses: list[int]
    cuts: list[int]
    ranges: list[str | None]
    understands_ranges = True

    def do_GET(self) -> None:  # noqa: N802
        self.ranges.append(self.headers.get("Range"))
        if self.statuses:
            self.send_error(self.statuses.pop(0))
            return
        if not self.understands_ranges:
            del self.headers["Range"]
        if self.cuts:
            body, self.wfile = self.wfile, _Cut(self.wfile, self.cuts.pop(0))  # type: ignore[assignment]
            try:
                super().do_GET()
            except BrokenPipeError:
                self.close_connection = True
            finally:
                self.wfile = body
            return
        super().do_GET()


class _Cut:
    """Passes the header and then only so many bytes of the body."""

    def __init__(self, stream: object, allowed: int) -> None:
        self._stream, self._allowed, self._in_body = stream, allowed, False

    def write(self, data: bytes) -> None:
        if self._in_body or not data.startswith(b"HTTP/"):
            self._in_body = True
            kept = data[: self._allowed]
            self._stream.write(kept)  # type: ignore[attr-defined]
            self._allowed -= len(kept)
            if len(kept) < len(data):
                raise BrokenPipeError
        else:
            self._stream.write(data)  # type: ignore[attr-defined]

    def flush(self) -> None:
        self._stream.flush()  # type: ignore[attr-defined]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Unreliable]]]:
    monkeypatch.setattr(http, "FIRST_PAUSE_SECONDS", 0.001)
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "file").write_bytes(CONTENT)
    handler = type("Handler", (Unreliable,), {"statuses": [], "cuts": [], "ranges": []})
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path / "served")))
    Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}/file", handler
    httpd.shutdown()
    httpd.server_close()


def expect_whole(part: Path, digests: http.FileDigests) -> None:
    assert part.read_bytes() == CONTENT
    assert digests.size == len(CONTENT)
    assert digests.md5 == hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    assert digests.sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_a_whole_file(server: tuple[str, type[Unreliable]], tmp_path: Path) -> None:
    digests = http.fetch(server[0], tmp_path / "part", "test")
    expect_whole(tmp_path / "part", digests)
    assert not digests.resumed


def test_a_later_run_asks_only_for_the_rest(server: tuple[str, type[Unreliable]], tmp_path: Path) -> None:
    url, handler = server
    (tmp_path / "part").write_bytes(CONTENT[:600_000])
    digests = http.fetch(url, tmp_path / "part", "test")
    expect_whole(tmp_path / "part", digests)
    assert digests.resumed
    assert handler.ranges == ["bytes=600000-"]


def test_a_cut_transfer_goes_on_where_it_stopped(server: tuple[str, type[Unreliable]], tmp_path: Path) -> None:
    url, handler = server
    handler.cuts = [100_000, 50_000]
    expect_whole(tmp_path / "part", http.fetch(url, tmp_path / "part", "test"))
    assert handler.ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_server_without_ranges_starts_again(server: tuple[str, type[Unreliable]], tmp_path: Path) -> None:
    url, handler = server
    handler.understands_ranges = False
    handler.cuts = [100_000]
    digests = http.fetch(url, tmp_path / "part", "test")
    expect_whole(tmp_path / "part", digests)
    assert not digests.resumed


def test_a_partial_file_that_is_too_long_is_replaced(server: tuple[str, type[Unreliable]], tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(CONTENT + b"more")
    expect_whole(tmp_path / "part", http.fetch(server[0], tmp_path / "part", "test"))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server: tuple[str, type[Unreliable]], tmp_path: Path, status: int) -> None:
    url, handler = server
    handler.statuses = [status, status]
    expect_whole(tmp_path / "part", http.fetch(url, tmp_path / "part", "test"))
    assert len(handler.ranges) == 3


def test_a_refusal_is_final(server: tuple[str, type[Unreliable]], tmp_path: Path) -> None:
    url, handler = server
    handler.statuses = [403]
    with pytest.raises(CosyFlowError, match=r"/file is refused: HTTP 403"):
        http.fetch(url, tmp_path / "part", "test")
    assert len(handler.ranges) == 1


def test_what_came_before_giving_up_is_kept(server: tuple[str, type[Unreliable]], tmp_path: Path) -> None:
    url, handler = server
    handler.cuts = [100_000] + [0] * http.ATTEMPTS
    with pytest.raises(CosyFlowError, match=r"the connection ended after 100000 of 1024000 bytes \(5 attempts\)"):
        http.fetch(url, tmp_path / "part", "test")
    assert (tmp_path / "part").read_bytes() == CONTENT[:100_000]
    expect_whole(tmp_path / "part", http.fetch(url, tmp_path / "part", "test"))
