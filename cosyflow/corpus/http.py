"""Fetching files over HTTP: an interrupted transfer goes on where it stopped, also in a later run."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cosyflow import __version__, disk, storage
from cosyflow.credentials import LOGINS_VARIABLE
from cosyflow.credentials.web import open_url
from cosyflow.errors import CosyFlowError, DiskError
from cosyflow.progress import Progress

AGENT = f"cosyflow/{__version__}"
ATTEMPTS = 5  # in a row without a byte received
FIRST_PAUSE_SECONDS = 0.5
TIMEOUT_SECONDS = 60
CHUNK_BYTES = 1 << 20
TEMPORARY_STATUS = {408, 425, 429}  # and every 5xx
_TRANSFER_ERRORS = (OSError, http.client.HTTPException)


class NotFoundError(CosyFlowError):
    """The server answers, and has nothing under this URL."""


@dataclass(frozen=True)
class FileDigests:
    """Size in bytes and hexadecimal digests of a whole file; `resumed` when its start came from an earlier run."""

    size: int
    md5: str
    sha256: str
    resumed: bool = False


def digest_file(path: Path) -> FileDigests:
    total = _RunningDigests()
    total.read(path)
    return total.result()


def fetch_text(url: str) -> str:
    """A small UTF-8 file. Raises NotFoundError, or CosyFlowError when the server cannot be reached."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _request(url, 0) as response:
                return response.read().decode("utf-8", errors="replace")
        except _TRANSFER_ERRORS as error:
            _pause_or_raise(url, error, attempt)
    raise AssertionError("the last attempt returns or raises")


def content_length(url: str, timeout: float = 5.0) -> int | None:
    """Bytes of a file at a URL, by one quick question; 0 where the server does not say, None where there is no file.

    Raises:
        CosyFlowError: the server cannot be reached, or refuses.
    """
    try:
        with open_url(url, timeout, {"User-Agent": AGENT}, "HEAD") as response:
            return int(response.headers.get("Content-Length") or 0)
    except urllib.error.HTTPError as error:
        if error.code in (404, 410):
            return None
        raise CosyFlowError(f"{url}: the server answers with status {error.code}{_login_hint(error)}") from error
    except (*_TRANSFER_ERRORS, ValueError) as error:
        raise CosyFlowError(f"{url}: the server cannot be reached ({getattr(error, 'reason', error)})") from error


def fetch(url: str, part: Path, label: str) -> FileDigests:
    """Fetches a file of any size to `part`; bytes that are there already are its start.

    Raises:
        NotFoundError: there is no such file.
        CosyFlowError: the server refuses, or no byte came in ATTEMPTS attempts. What came before is kept.
    """
    digests = _RunningDigests()
    if part.exists():
        digests.read(part)
    resumed = digests.size > 0
    failures = 0
    with ExitStack() as stack:
        progress: Progress | None = None
        while True:
            before = digests.size
            try:
                with _request(url, before) as response:
                    offset, total = _extent(response, before)
                    if offset != before:
                        digests, resumed = _RunningDigests(), False
                    if progress is None:
                        progress = stack.enter_context(Progress(label, total and _kilobytes(total), "kB"))
                        progress.update(_kilobytes(digests.size))
                    _receive(response, part, digests, progress)
                if total is None or digests.size == total:
                    break
                raise ConnectionError(f"the connection ended after {digests.size} of {total} bytes")
            except _TRANSFER_ERRORS as error:
                failures = 1 if digests.size > before else failures + 1
                _pause_or_raise(url, error, failures)
    return digests.result(resumed)


class _RunningDigests:
    def __init__(self) -> None:
        self.size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()

    def update(self, data: bytes) -> None:
        self.size += len(data)
        self._md5.update(data)
        self._sha256.update(data)

    def read(self, path: Path) -> None:
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                self.update(chunk)

    def result(self, resumed: bool = False) -> FileDigests:
        return FileDigests(self.size, self._md5.hexdigest(), self._sha256.hexdigest(), resumed)


def _request(url: str, offset: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        response = open_url(url, TIMEOUT_SECONDS, headers)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
                return _request(url, 0)
            raise
    return response


def _extent(response: http.client.HTTPResponse, wanted: int) -> tuple[int, int | None]:
    """Where the body of an answer starts within the file, and the size of the file if the server gives it."""
    length = response.headers.get("Content-Length")
    if response.status != http.client.PARTIAL_CONTENT:
        return 0, None if length is None else int(length)
    span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    start = span.partition("-")[0]
    if start != str(wanted):
        raise http.client.HTTPException(f"asked for bytes from {wanted}, the answer starts at {start or 'nowhere'}")
    return wanted, int(total) if total.isdigit() else None


def _receive(response: http.client.HTTPResponse, part: Path, digests: _RunningDigests, progress: Progress) -> None:
    with part.open("ab" if digests.size else "wb") as stream:
        while chunk := response.read1(CHUNK_BYTES):
            _write(stream, chunk, part)
            kilobytes = _kilobytes(digests.size)
            digests.update(chunk)
            progress.update(_kilobytes(digests.size) - kilobytes)


def _write(stream: BinaryIO, chunk: bytes, part: Path) -> None:
    storage.check_fences(str(part))
    try:
        stream.write(chunk)
        stream.flush()
    except OSError as error:
        raise DiskError(f"{disk.explained(part, error)}; the same command goes on where it stopped") from error


def _pause_or_raise(url: str, error: Exception, failures: int) -> None:
    if isinstance(error, urllib.error.HTTPError):
        if error.code in (http.client.NOT_FOUND, http.client.GONE):
            raise NotFoundError(f"{url} is not there (HTTP {error.code})") from error
        if error.code < http.client.INTERNAL_SERVER_ERROR and error.code not in TEMPORARY_STATUS:
            raise CosyFlowError(f"{url} is refused: HTTP {error.code} {error.reason}{_login_hint(error)}") from error
    if failures >= ATTEMPTS:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise CosyFlowError(
            f"{url} cannot be fetched: {reason} ({failures} attempts); the same command goes on where it stopped"
        ) from error
    time.sleep(FIRST_PAUSE_SECONDS * 2 ** (failures - 1))


def _login_hint(error: urllib.error.HTTPError) -> str:
    """What to do where the server does not know us."""
    if error.code not in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
        return ""
    return f"; name a file with its login in {LOGINS_VARIABLE}, or a signed address (docs/credentials.md)"


def _kilobytes(size: int) -> int:
    return -(-size // 1000)
