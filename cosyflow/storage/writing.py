"""Writing an object whole: it is spooled on this machine, and sent with digests by which the store notices damage."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from http import HTTPStatus
from typing import Any, BinaryIO, cast

from cosyflow import disk
from cosyflow.errors import DiskError
from cosyflow.storage import faults, fences
from cosyflow.storage.client import client
from cosyflow.storage.patience import retried
from cosyflow.storage.reading import DIGEST

SPOOL_MEMORY_BYTES = 8 << 20
PART_BYTES = 8 << 20
"""A larger object goes in parts of this size, or of the size that makes at most MOST_PARTS of it."""
MOST_PARTS = 10_000
PARTS_AT_ONCE = 4
COPY_BYTES = 1 << 20
THERE_ALREADY = (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT)
"""The object is there; or somebody else is writing it just now, and one of the two is refused."""


@contextmanager
def spooled(path: str) -> Iterator[BinaryIO]:
    """A stream whose content becomes the object `bucket/key` when the `with` body ends, and not when it raises."""
    # An upload that is dropped half-way could complete the object, and a finished spool can be sent again.
    with disk.written("the folder of temporary files"):
        folder = tempfile.gettempdir()
    spool = _Spool(SPOOL_MEMORY_BYTES, dir=folder)
    try:
        try:
            yield cast(BinaryIO, spool)
        except Exception as error:
            if spool.failure is not None:  # what a library makes of it names no place
                raise _no_room(path, folder, spool.failure) from error
            raise
        fences.check(f"s3://{path}")
        try:
            spool.seek(0)
        except OSError as error:  # the last bytes were still in its buffer
            raise _no_room(path, folder, error) from error
        _upload(path, cast(BinaryIO, spool))
    finally:
        with suppress(OSError):
            spool.close()


class _Spool(disk.Remembering, tempfile.SpooledTemporaryFile[bytes]):
    """Memory, and from SPOOL_MEMORY_BYTES on a file."""


def _no_room(path: str, folder: str, error: OSError) -> DiskError:
    place = os.path.join(folder, "")  # noqa: PTH118 - ends in a slash
    return DiskError(f"{disk.explained(place, error)}; what goes to s3://{path} is collected there first")


def create_object(path: str, data: bytes) -> bool:
    """Writes the object `bucket/key` if there is none. Returns whether it did; raises what `faults` knows."""
    try:
        _put(path, data, {}, IfNoneMatch="*")
    except faults.exceptions() as error:
        if faults.code_of(error)[1] in THERE_ALREADY:
            return False
        raise
    return True


def _upload(path: str, spool: BinaryIO) -> None:
    sha256, size = hashlib.sha256(), 0
    spool.seek(0)
    while chunk := spool.read(COPY_BYTES):
        sha256.update(chunk)
        size += len(chunk)
    spool.seek(0)
    metadata = {DIGEST: sha256.hexdigest()}
    if size <= PART_BYTES:
        data = spool.read()
        retried(path, lambda: _put(path, data, metadata))
    else:
        retried(path, lambda: _send_parts(path, spool, size, metadata))


def _put(path: str, data: bytes, metadata: dict[str, str], **conditions: str) -> None:
    client().put_object(**_address(path), Body=data, ContentMD5=_md5(data), Metadata=metadata, **conditions)


def _send_parts(path: str, spool: BinaryIO, size: int, metadata: dict[str, str]) -> None:
    """A multipart upload, removed from the store when it does not come to its end."""
    part_bytes = max(PART_BYTES, math.ceil(size / MOST_PARTS))
    begun = client().create_multipart_upload(**_address(path), Metadata=metadata)
    upload = {**_address(path), "UploadId": begun["UploadId"]}
    try:
        etags: list[str] = []
        spool.seek(0)
        with ThreadPoolExecutor(PARTS_AT_ONCE) as threads:
            while group := [data for _ in range(PARTS_AT_ONCE) if (data := spool.read(part_bytes))]:
                sent = [
                    threads.submit(copy_context().run, _send_part, path, upload, number, data)
                    for number, data in enumerate(group, len(etags) + 1)
                ]
                etags += [part.result() for part in sent]
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        client().complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    except BaseException:
        with suppress(*faults.exceptions()):  # gone, or the store is: what it keeps of it, its own rules remove
            client().abort_multipart_upload(**upload)
        raise


def _send_part(path: str, upload: dict[str, Any], number: int, data: bytes) -> str:
    digest = _md5(data)
    answer = retried(path, lambda: client().upload_part(**upload, PartNumber=number, Body=data, ContentMD5=digest))
    return str(answer["ETag"])


def _address(path: str) -> dict[str, str]:
    bucket, _, key = path.partition("/")
    return {"Bucket": bucket, "Key": key}


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
