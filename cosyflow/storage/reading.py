"""Reading an object by parts, as one and the same object, whose bytes are those that were written."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, BinaryIO, cast

from cosyflow.storage import faults
from cosyflow.storage.client import client
from cosyflow.storage.faults import BrokenAnswerError
from cosyflow.storage.patience import error_for, retried

BUFFER_BYTES = 1 << 20
SMALLEST_WINDOW, LARGEST_WINDOW = 1 << 20, 8 << 20
"""Bytes of a request: the first, and as many as a stream grows to that is read from front to back."""
DIGEST = "cosyflow-sha256"
"""The object's metadata that has the SHA-256 of its content."""
ETAGS_VARIABLE, OPAQUE = "COSYFLOW_S3_ETAGS", "opaque"
_MD5 = re.compile(r"[0-9a-f]{32}")
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def open_object(path: str) -> BinaryIO:
    """A seekable stream over the object `bucket/key`; small ones cost one request."""
    return cast(BinaryIO, io.BufferedReader(_ObjectReader(path), BUFFER_BYTES))


@dataclass(frozen=True)
class _Window:
    """Bytes of an object from `start` on, and what the answer says about the whole."""

    start: int
    data: bytes
    total: int
    etag: str
    digest: str

    @property
    def end(self) -> int:
        return self.start + len(self.data)


class _ObjectReader(io.RawIOBase):
    """A seekable raw stream over one object, whose reads are tried again and whose errors name the URI.

    An object that is overwritten meanwhile is noticed. Where it is read from front to back, its bytes are compared with
    the digest that the store has of them.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path, self._position, self._size = path, 0, SMALLEST_WINDOW
        self._window = retried(path, lambda: _fetch(path, 0, SMALLEST_WINDOW, ""))
        self._total, self._etag = self._window.total, self._window.etag
        self._hash, self._hashed = _hash_for(self._window.digest), 0
        self._compare(self._window)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        pieces = []
        while piece := self._read(max(0, self._total - self._position)):
            pieces.append(piece)
        return b"".join(pieces)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._total}[whence]
        if base + offset < 0:
            raise ValueError(f"s3://{self._path}: position {base + offset} is before its begin")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def _read(self, wanted: int) -> bytes:
        """At most that many bytes from the position on; fewer only at the end of what one request gives."""
        wanted = min(wanted, self._total - self._position)
        if wanted <= 0:
            return b""
        if not self._window.start <= self._position < self._window.end:
            self._load(wanted)
        begin = self._position - self._window.start
        data = self._window.data[begin : begin + wanted]
        self._position += len(data)
        return data

    def _load(self, wanted: int) -> None:
        goes_on = self._position == self._window.end
        self._size = min(2 * self._size, LARGEST_WINDOW) if goes_on else SMALLEST_WINDOW
        size = max(self._size, min(wanted, LARGEST_WINDOW))
        position, etag = self._position, self._etag
        self._window = retried(self._path, lambda: _fetch(self._path, position, size, etag))
        self._compare(self._window)

    def _compare(self, window: _Window) -> None:
        """Takes the bytes into the digest when they are the next ones, and compares it at the end."""
        if self._hash is None or window.start != self._hashed:
            return
        self._hash.update(window.data)
        self._hashed = window.end
        if self._hashed == self._total and self._hash.hexdigest() != window.digest:
            raise error_for(self._path, faults.fault_of(_altered()))


def _fetch(path: str, start: int, count: int, etag: str) -> _Window:
    """One request; raises what `faults` knows."""
    bucket, _, key = path.partition("/")
    condition = {"IfMatch": etag} if etag else {}
    request: dict[str, Any] = {"Bucket": bucket, "Key": key, **condition}
    try:
        answer = client().get_object(Range=f"bytes={start}-{start + count - 1}", **request)
    except faults.exceptions() as error:
        if start or faults.code_of(error)[1] != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        answer = client().get_object(**request)  # an empty object has no first byte
    with closing(answer["Body"]) as body:
        window = _window(answer, body, start, count)
    if etag and window.etag != etag:  # a store that does not know the condition
        raise BrokenAnswerError("Overwritten", "it is another object than before")
    if window.end == window.total and not start:
        _require_digest(window)
    return window


def _window(answer: Mapping[str, Any], body: Any, start: int, count: int) -> _Window:
    span = _RANGE.fullmatch(str(answer.get("ContentRange") or ""))
    total = int(span[3]) if span else int(answer["ContentLength"])
    if (int(span[1]) if span else 0) != start:
        raise BrokenAnswerError("ContradictoryAnswer", "the store gives other bytes than those it was asked for")
    wanted = min(count, total - start)
    data: bytes = body.read() if span or total <= count else body.read(wanted)
    if len(data) != wanted:
        raise BrokenAnswerError("IncompleteBody", f"{len(data)} of {wanted} bytes came")
    return _Window(start, data, total, str(answer["ETag"]), _digest(answer))


def _digest(answer: Mapping[str, Any]) -> str:
    """The digest of the whole object that the store gives with it, in hexadecimal; "" where there is none."""
    if own := answer.get("Metadata", {}).get(DIGEST):
        return str(own)
    etag = str(answer["ETag"]).strip('"').lower()
    is_encrypted = answer.get("SSECustomerAlgorithm") or str(answer.get("ServerSideEncryption", "")).startswith("aws:")
    is_md5 = os.environ.get(ETAGS_VARIABLE) != OPAQUE and not is_encrypted
    return etag if is_md5 and _MD5.fullmatch(etag) else ""


def _hash_for(digest: str) -> Any:
    if not digest:
        return None
    return hashlib.sha256() if len(digest) == 64 else hashlib.md5(usedforsecurity=False)


def _require_digest(window: _Window) -> None:
    if (made := _hash_for(window.digest)) is not None:
        made.update(window.data)
        if made.hexdigest() != window.digest:
            raise _altered()


def _altered() -> BrokenAnswerError:
    return BrokenAnswerError("DigestMismatch", "its bytes are not those that the store has the digest of")
