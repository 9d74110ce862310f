"""Sizes and ETags of a store's objects, a thousand a request; the client that moves content gives none while listing.

Failures are OSErrors that name the store's condition in the words that client uses, so that both are tried again alike.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minio import Minio

    from cosyflow.storage.s3 import S3Settings

AWS_ENDPOINT = "s3.amazonaws.com"
MISSING = ("NoSuchKey", "NoSuchBucket", "NoSuchObject")


def object_tag(settings: S3Settings, path: str) -> tuple[int, str]:
    """(bytes, ETag) of the object `bucket/key`; FileNotFoundError where there is none."""
    bucket, _, key = path.partition("/")
    with _raised_as_os_errors():
        found = _connect(settings, os.getpid()).stat_object(bucket, key)
        return int(found.size or 0), str(found.etag)


def folder_tags(settings: S3Settings, path: str, deep: bool) -> list[tuple[str, int, str]]:
    """(relative key, bytes, ETag) of the objects below `bucket/prefix`, of its own level alone unless `deep`."""
    bucket, _, prefix = path.partition("/")
    prefix = prefix and f"{prefix}/"
    try:
        with _raised_as_os_errors():
            listed = list(_connect(settings, os.getpid()).list_objects(bucket, prefix=prefix, recursive=deep))
    except FileNotFoundError:  # no such bucket
        return []
    keys = [(str(found.object_name), int(found.size or 0), str(found.etag)) for found in listed if not found.is_dir]
    # As in listings elsewhere, a key that ends in a slash stands for a folder.
    return [(key.removeprefix(prefix).lstrip("/"), size, tag) for key, size, tag in keys if not key.endswith("/")]


@lru_cache(maxsize=4)
def _connect(settings: S3Settings, process: int) -> Minio:
    """One client for each process and each setting of the environment."""
    import urllib3
    from minio import Minio
    from minio.credentials.providers import AWSConfigProvider, ChainedProvider, IamAwsProvider

    return Minio(
        settings.endpoint or AWS_ENDPOINT,
        access_key=settings.access_key,
        secret_key=settings.secret_key,
        session_token=settings.session_token,
        credentials=None if settings.access_key else ChainedProvider([AWSConfigProvider(), IamAwsProvider()]),
        secure=settings.scheme == "https",
        region=settings.region,
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=5, read=60),
            maxsize=16,
            retries=urllib3.Retry(total=2, backoff_factor=0.1, status_forcelist=(500, 502, 503, 504)),
        ),
    )


@contextmanager
def _raised_as_os_errors() -> Iterator[None]:
    from minio.error import MinioException, S3Error
    from urllib3.exceptions import HTTPError, NameResolutionError

    try:
        yield
    except S3Error as error:
        if error.code in MISSING:
            raise FileNotFoundError(error.code) from error
        condition = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", error.code or "UNKNOWN").upper()
        raise OSError(f"{condition} (HTTP status {error.response.status}): {error.message}") from error
    except HTTPError as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, NameResolutionError):
            raise OSError(f"could not resolve host: {reason}") from error
        raise OSError(f"NETWORK_CONNECTION: {reason}") from error
    except (MinioException, ValueError) as error:  # an answer that is no S3, an impossible name, no credentials
        raise OSError(str(error)) from error
