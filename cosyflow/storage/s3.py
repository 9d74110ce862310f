"""Objects of an S3 store, as files and folders. The credentials are never part of an error message."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, BinaryIO

from cosyflow.errors import MissingObjectError
from cosyflow.storage import faults, fences, reading, writing
from cosyflow.storage.client import client
from cosyflow.storage.faults import BrokenAnswerError
from cosyflow.storage.fences import LEASES
from cosyflow.storage.patience import retried

REMOVE_THREADS = 8


@dataclass(frozen=True)
class _Object:
    key: str
    size: int
    etag: str
    modified: float


class S3Objects:
    """Every method takes `bucket/key`. Transient failures are tried again; what lasts is one line with the URI."""

    def kind(self, path: str) -> str | None:
        found = retried(path, lambda: _look(path))
        return "file" if isinstance(found, _Object) else found

    def has_any(self, path: str) -> bool:
        return self.kind(path) == "folder"

    def size(self, path: str) -> int:
        return self._object(path).size

    def modified(self, path: str) -> float:
        return self._object(path).modified

    def walk(self, path: str) -> Iterator[tuple[str, int]]:
        for found in self._files(path, deep=True):
            yield found.key, found.size

    def state(self, path: str) -> tuple[int, str, int]:
        """(bytes, ETag, 0) of an object."""
        found = self._object(path)
        return found.size, found.etag, 0

    def states(self, path: str, deep: bool) -> Iterator[tuple[str, tuple[int, str, int]]]:
        """(relative key, what `state` returns) of every object below a prefix, of its own level alone unless `deep`."""
        for found in self._files(path, deep):
            yield found.key, (found.size, found.etag, 0)

    def make_directory(self, path: str) -> None:
        """Nothing to do: a store has no folders, only keys."""

    def open_read(self, path: str) -> BinaryIO:
        return reading.open_object(path)

    def open_write(self, path: str) -> AbstractContextManager[BinaryIO]:
        return writing.spooled(path)

    def create(self, path: str, data: bytes) -> bool:
        """Writes a small object where there is none. Returns whether it did.

        After a failure that was tried again, False may also mean that the first attempt had written it.
        """
        return retried(path, lambda: writing.create_object(path, data))

    def remove(self, path: str) -> None:
        fences.check(f"s3://{path}")
        kind = self.kind(path)
        if kind == "file":
            _delete(path)
        elif kind == "folder":
            bucket = path.partition("/")[0]
            with ThreadPoolExecutor(REMOVE_THREADS) as threads:
                keys = [found.key for found in _listed(path, deep=True)]
                gone = [threads.submit(copy_context().run, _delete, f"{bucket}/{key}") for key in keys]
                for each in gone:
                    each.result()

    def _object(self, path: str) -> _Object:
        found = retried(path, lambda: _look(path))
        if not isinstance(found, _Object):
            raise MissingObjectError(f"s3://{path} does not exist; check the address")
        return found

    def _files(self, path: str, deep: bool) -> Iterator[_Object]:
        """The objects below a prefix, with relative keys; a missing bucket holds none."""
        prefix = _prefix(path)
        for found in _listed(path, deep):
            relative = found.key.removeprefix(prefix).lstrip("/")
            # A key that ends in a slash stands for a folder.
            if not found.key.endswith("/") and LEASES not in relative.split("/"):
                yield _Object(relative, found.size, found.etag, found.modified)


def _look(path: str) -> _Object | str | None:
    """One of an object, "folder" (a key below it), None."""
    bucket, _, key = path.partition("/")
    if not key:
        return _look_for_bucket(bucket)
    try:
        head = client().head_object(Bucket=bucket, Key=key)
    except faults.exceptions() as error:
        if faults.code_of(error)[1] != HTTPStatus.NOT_FOUND:
            raise _with_code(error, bucket, key) from error
        return _what_lies_below(bucket, key)
    return _Object(key, int(head["ContentLength"]), _plain(head["ETag"]), head["LastModified"].timestamp())


def _look_for_bucket(bucket: str) -> str | None:
    try:
        client().list_objects_v2(Bucket=bucket, MaxKeys=1)
    except faults.exceptions() as error:
        if faults.code_of(error)[0] != "NoSuchBucket":
            raise
        return None
    return "folder"


def _what_lies_below(bucket: str, key: str) -> str | None:
    """ "folder" or None, of a key that has no object; a listing that has one after all contradicts."""
    for prefix in (key, f"{key}/"):  # of all keys that begin so, the key itself is the first
        try:
            answer = client().list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except faults.exceptions() as error:
            if faults.code_of(error)[0] != "NoSuchBucket":
                raise
            return None
        first = next((str(found["Key"]) for found in answer.get("Contents", [])), "")
        if first == key:
            raise BrokenAnswerError("ContradictoryAnswer", "it is listed, and cannot be found")
        if first.startswith(f"{key}/"):
            return "folder"
        if not first:
            return None
    return None


def _with_code(error: Exception, bucket: str, key: str) -> Exception:
    """The refusal of a HEAD request, whose answer has no room for a code: what a GET request gets."""
    if faults.code_of(error)[0].isdecimal():
        try:
            client().get_object(Bucket=bucket, Key=key, Range="bytes=0-0")["Body"].close()
        except faults.exceptions() as refused:
            if faults.code_of(refused)[1] == faults.code_of(error)[1]:
                return refused
    return error


def _listed(path: str, deep: bool) -> Iterator[_Object]:
    """The objects below `bucket/prefix` as the store lists them, a thousand a request."""
    bucket, prefix = path.partition("/")[0], _prefix(path)
    asked: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
    if not deep:
        asked["Delimiter"] = "/"
    while True:
        answer = retried(path, lambda: _page(dict(asked)))
        if answer is None:
            return
        for found in answer.get("Contents", []):
            yield _Object(found["Key"], int(found["Size"]), _plain(found["ETag"]), found["LastModified"].timestamp())
        if not answer.get("IsTruncated"):
            return
        asked["ContinuationToken"] = answer["NextContinuationToken"]


def _page(asked: dict[str, Any]) -> Any:
    """One page of a listing; None where there is no such bucket."""
    try:
        answer = client().list_objects_v2(**asked)
    except faults.exceptions() as error:
        if faults.code_of(error)[0] != "NoSuchBucket" or "ContinuationToken" in asked:
            raise
        return None
    named = len(answer.get("Contents", [])) + len(answer.get("CommonPrefixes", []))
    if answer.get("KeyCount", named) != named:
        raise BrokenAnswerError("IncompleteBody", f"a list of {answer['KeyCount']} keys has {named}")
    if answer.get("IsTruncated") and not answer.get("NextContinuationToken"):
        raise BrokenAnswerError("IncompleteBody", "a list that goes on does not say where")
    return answer


def _delete(path: str) -> None:
    bucket, _, key = path.partition("/")

    def delete() -> None:
        try:
            client().delete_object(Bucket=bucket, Key=key)
        except faults.exceptions() as error:
            if faults.code_of(error)[0] != "NoSuchKey":
                raise

    retried(path, delete)


def _prefix(path: str) -> str:
    key = path.partition("/")[2]
    return key and f"{key}/"


def _plain(etag: str) -> str:
    return str(etag).strip('"')
