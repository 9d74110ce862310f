"""Objects of a store that are written only where nothing is yet: conditional writes, which the other clients lack.

Failures are OSErrors that name the store's condition in the words of the client that moves content, so that all are
tried again alike.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosyflow.storage.s3 import S3Settings

THERE_ALREADY = (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.CONFLICT)
"""The object is there; or somebody else is writing it just now, and one of the two is refused."""


def create_object(settings: S3Settings, path: str, data: bytes) -> bool:
    """Writes the object `bucket/key` if there is none. Returns whether it did."""
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = path.partition("/")
    try:
        _connect(settings, os.getpid()).put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except ClientError as error:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if status in THERE_ALREADY:
            return False
        raise OSError(_condition(error, status)) from error
    except BotoCoreError as error:
        raise OSError(_trouble(error)) from error
    return True


@lru_cache(maxsize=4)
def _connect(settings: S3Settings, process: int) -> Any:
    """One client for each process and each setting of the environment."""
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        endpoint_url=f"{settings.scheme}://{settings.endpoint}" if settings.endpoint else None,
        region_name=settings.region,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        aws_session_token=settings.session_token,
        config=Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"total_max_attempts": 1},
            request_checksum_calculation="when_required",  # older stores refuse the checksums of newer clients
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if settings.endpoint else "auto"},
        ),
    )


def _condition(error: Any, status: int) -> str:
    answer = error.response.get("Error", {})
    condition = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(answer.get("Code") or "UNKNOWN")).upper()
    return f"{condition} (HTTP status {status}): {answer.get('Message', '')}"


def _trouble(error: Any) -> str:
    from botocore.exceptions import ConnectionError as NoConnectionError
    from botocore.exceptions import HTTPClientError
    from urllib3.exceptions import NameResolutionError

    cause = error.kwargs.get("error")
    if isinstance(getattr(cause, "reason", cause), NameResolutionError):
        return f"could not resolve host: {error}"
    if isinstance(error, (NoConnectionError, HTTPClientError)):
        return f"NETWORK_CONNECTION: {error}"
    return str(error)
