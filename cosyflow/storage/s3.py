"""Objects of an S3 store. The credentials come from the environment and are never part of an error message."""

from __future__ import annotations

import io
import logging
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

from cosyflow.errors import CosyFlowError, OutageError
from cosyflow.storage import creation, etags, fences
from cosyflow.storage.fences import LEASES

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

T = TypeVar("T")

ENDPOINT_VARIABLES = ("COSYFLOW_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
CREDENTIAL_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 4.0
OUTAGE_SECONDS = 120.0
"""How long a store that does not answer is waited for: longer than it takes to start again on another node."""
READ_BUFFER_BYTES = 1 << 20
SPOOL_MEMORY_BYTES = 8 << 20
LASTING_CONDITIONS = (  # a further attempt would end the same way
    "ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH", "INVALID_SIGNATURE", "NO_SUCH_BUCKET",
    "NO_SUCH_KEY", "RESOURCE_NOT_FOUND", "INVALID_CLIENT_TOKEN",
)  # fmt: skip
OUTAGE_CONDITIONS = (  # the store is unreachable, or not ready yet
    "NETWORK_CONNECTION", "SERVICE_UNAVAILABLE", "SLOW_DOWN", "INTERNAL_FAILURE", "HTTP status 500", "HTTP status 502",
    "HTTP status 503", "HTTP status 504",
)  # fmt: skip
NO_SUCH_HOST = "curlCode: 6,"  # more often a misspelt address than an outage

_outage_seconds: ContextVar[float | None] = ContextVar("outage_seconds", default=None)


@contextmanager
def impatient() -> Iterator[None]:
    """Within the `with` body a store that does not answer is an error after a few attempts, in seconds."""
    token = _outage_seconds.set(0.0)
    try:
        yield
    finally:
        _outage_seconds.reset(token)


@dataclass(frozen=True)
class S3Settings:
    """What the environment says about the store."""

    scheme: str
    endpoint: str | None
    region: str
    access_key: str | None
    secret_key: str | None
    session_token: str | None

    @classmethod
    def from_environment(cls) -> S3Settings:
        name, url = next(((name, os.environ[name]) for name in ENDPOINT_VARIABLES if os.environ.get(name)), ("", ""))
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None):
            raise CosyFlowError(f"{name} must be a URL like http://minio:9000, without a user name")
        return cls(
            scheme=parts.scheme or "https",
            endpoint=parts.netloc or None,
            region=next((os.environ[key] for key in REGION_VARIABLES if os.environ.get(key)), "us-east-1"),
            access_key=os.environ.get("AWS_ACCESS_KEY_ID") or None,
            secret_key=os.environ.get("AWS_SECRET_ACCESS_KEY") or None,
            session_token=os.environ.get("AWS_SESSION_TOKEN") or None,
        )


class S3Objects:
    """Every method takes `bucket/key`. Transient failures are tried again; what lasts is one line with the URI."""

    def kind(self, path: str) -> str | None:
        from pyarrow.fs import FileType

        info = self._call(path, lambda files: files.get_file_info(path))
        return {FileType.File: "file", FileType.Directory: "folder"}.get(info.type)

    def has_any(self, path: str) -> bool:
        return self.kind(path) == "folder"

    def size(self, path: str) -> int:
        info = self._call(path, lambda files: files.get_file_info(path))
        if not info.is_file:
            raise CosyFlowError(f"s3://{path} does not exist")
        return int(info.size)

    def modified(self, path: str) -> float:
        info = self._call(path, lambda files: files.get_file_info(path))
        if not info.is_file:
            raise CosyFlowError(f"s3://{path} does not exist")
        return float(info.mtime_ns) / 1e9

    def walk(self, path: str) -> Iterator[tuple[str, int]]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(path, allow_not_found=True, recursive=True)
        for info in self._call(path, lambda files: files.get_file_info(selector)):
            relative = info.path.removeprefix(path).lstrip("/")
            if info.is_file and not _is_lease(relative):
                yield relative, int(info.size)

    def state(self, path: str) -> tuple[int, str, int]:
        """(bytes, ETag, 0) of an object."""
        settings = S3Settings.from_environment()
        return (*_retried(path, lambda: etags.object_tag(settings, path)), 0)

    def states(self, path: str, deep: bool) -> Iterator[tuple[str, tuple[int, str, int]]]:
        """(relative key, what `state` returns) of every object below a prefix, of its own level alone unless `deep`."""
        settings = S3Settings.from_environment()
        for relative, size, tag in _retried(path, lambda: etags.folder_tags(settings, path, deep)):
            if not _is_lease(relative):
                yield relative, (size, tag, 0)

    def make_directory(self, path: str) -> None:
        """Nothing to do: a store has no folders, only keys."""

    def open_read(self, path: str) -> BinaryIO:
        stream = self._call(path, lambda files: files.open_input_file(path))
        return cast(BinaryIO, io.BufferedReader(_ObjectReader(path, stream), READ_BUFFER_BYTES))

    @contextmanager
    def open_write(self, path: str) -> Iterator[BinaryIO]:
        # The body is spooled first: an upload stream that is dropped half-way completes the object, and a finished
        # spool can be sent again after a transient failure.
        with tempfile.SpooledTemporaryFile(SPOOL_MEMORY_BYTES) as spool:
            yield cast(BinaryIO, spool)
            fences.check(f"s3://{path}")
            self._call(path, lambda files: _upload(files, path, cast(BinaryIO, spool)))

    def create(self, path: str, data: bytes) -> bool:
        """Writes a small object where there is none. Returns whether it did.

        After a failure that was tried again, False may also mean that the first attempt had written it.
        """
        settings = S3Settings.from_environment()
        return _retried(path, lambda: creation.create_object(settings, path, data))

    def remove(self, path: str) -> None:
        fences.check(f"s3://{path}")
        kind = self.kind(path)
        if kind == "folder":
            self._call(path, lambda files: files.delete_dir(path))
        elif kind == "file":
            self._call(path, lambda files: files.delete_file(path))

    def _call(self, path: str, action: Callable[[S3FileSystem], T]) -> T:
        files = _connect(S3Settings.from_environment(), os.getpid())
        return _retried(path, lambda: action(files))


class _ObjectReader(io.RawIOBase):
    """A seekable raw stream over one object, whose reads are tried again and whose errors name the URI."""

    def __init__(self, path: str, stream: Any) -> None:
        super().__init__()
        self._path, self._stream = path, stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        start = self._stream.tell()

        def read() -> bytes:
            self._stream.seek(start)
            return cast(bytes, self._stream.read(len(buffer)))

        data = _retried(self._path, read)
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._stream.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        return int(self._stream.tell())

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


@lru_cache(maxsize=4)
def _connect(settings: S3Settings, process: int) -> S3FileSystem:
    """One client for each process (its threads do not survive a fork) and each setting of the environment."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    return S3FileSystem(
        access_key=settings.access_key,
        secret_key=settings.secret_key,
        session_token=settings.session_token,
        region=settings.region,
        scheme=settings.scheme,
        endpoint_override=settings.endpoint,
        connect_timeout=5,
        request_timeout=60,
        allow_delayed_open=True,  # a small object is one request instead of three
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=3),
    )


def _upload(files: S3FileSystem, path: str, body: BinaryIO) -> None:
    body.seek(0)
    with files.open_output_stream(path, compression=None) as stream:  # by default the name's ending chooses one
        shutil.copyfileobj(body, stream, READ_BUFFER_BYTES)


def _retried(path: str, action: Callable[[], T]) -> T:
    """The action's result, tried ATTEMPTS times, and during an outage for OUTAGE_SECONDS."""
    patience = _outage_seconds.get()
    deadline = time.monotonic() + (OUTAGE_SECONDS if patience is None else patience)
    for attempt in count(1):
        try:
            return action()
        except FileNotFoundError as error:
            raise CosyFlowError(f"s3://{path} does not exist") from error
        except OSError as error:
            message = _without_credentials(str(error))
            outage = _is_outage(message)
            may_pass = attempt < ATTEMPTS or (outage and time.monotonic() < deadline)
            if not may_pass or any(condition in message for condition in LASTING_CONDITIONS):
                kind = OutageError if outage else CosyFlowError
                raise kind(f"s3://{path}: {message}") from None
        if attempt == ATTEMPTS:
            logging.getLogger(__name__).warning("s3://%s: %s; waits for the store", path, message)
        time.sleep(min(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.5))
    raise AssertionError("the loop ends by a result or an error")


def _is_lease(relative: str) -> bool:
    return LEASES in relative.split("/")


def _is_outage(message: str) -> bool:
    return NO_SUCH_HOST not in message and any(condition in message for condition in OUTAGE_CONDITIONS)


def _without_credentials(message: str) -> str:
    for name in CREDENTIAL_VARIABLES:
        if secret := os.environ.get(name):
            message = message.replace(secret, f"<{name}>")
    return message
