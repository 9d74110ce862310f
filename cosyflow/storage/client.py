"""The one client of S3 stores: who is asked, as whom, and for how long. All of it comes from the environment."""

from __future__ import annotations

import math
import os
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from cosyflow.errors import CosyFlowError

ENDPOINT_VARIABLES = ("COSYFLOW_S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
CREDENTIAL_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
PROFILE_VARIABLE = "AWS_PROFILE"
TIMEOUT_VARIABLE = "COSYFLOW_S3_TIMEOUT"
DEFAULT_REGION = "us-east-1"
CONNECT_SECONDS = 5.0
READ_SECONDS = 60.0
"""How long an answer, or the next bytes of one, may take."""
CONNECTIONS = 32


_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)  # a thread that is not in the child may have held it


@dataclass(frozen=True)
class S3Settings:
    """What the environment says about the store."""

    endpoint: str | None
    region: str | None
    profile: str | None
    access_key: str | None = field(repr=False)
    secret_key: str | None = field(repr=False)
    session_token: str | None = field(repr=False)
    read_seconds: float = READ_SECONDS

    @classmethod
    def from_environment(cls) -> S3Settings:
        """Raises CosyFlowError, naming the variable that is wrong."""
        name, url = next(((name, os.environ[name]) for name in ENDPOINT_VARIABLES if os.environ.get(name)), ("", ""))
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None):
            raise CosyFlowError(f"{name} must be a URL like http://minio:9000, without a user name")
        return cls(
            endpoint=f"{parts.scheme}://{parts.netloc}" if url else None,
            region=next((os.environ[key] for key in REGION_VARIABLES if os.environ.get(key)), None),
            profile=os.environ.get(PROFILE_VARIABLE) or None,
            access_key=os.environ.get("AWS_ACCESS_KEY_ID") or None,
            secret_key=os.environ.get("AWS_SECRET_ACCESS_KEY") or None,
            session_token=os.environ.get("AWS_SESSION_TOKEN") or None,
            read_seconds=seconds_from(TIMEOUT_VARIABLE, READ_SECONDS),
        )


def seconds_from(variable: str, otherwise: float) -> float:
    """A number of seconds in the environment; CosyFlowError when it is none, or not above 0."""
    text = os.environ.get(variable)
    if not text:
        return otherwise
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise CosyFlowError(f"{variable} must be a number of seconds above 0, like {otherwise:g}, and not {text!r}")
    return seconds


def client() -> Any:
    """boto3's client of the store that the environment names now."""
    with _lock:  # threads that begin at the same time would each make one, which takes long
        return _connect(S3Settings.from_environment(), os.getpid())


@lru_cache(maxsize=4)
def _connect(settings: S3Settings, process: int) -> Any:
    """One client for each process, since a fork must not share its parent's connections, and each environment."""
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.session import get_session  # boto3's own session is the same, and takes longer to import

    # Credentials that the environment does not have come from where it looks next: files, roles, the machine.
    session = get_session()
    is_known = bool(settings.access_key) or session.get_credentials() is not None
    return session.create_client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=settings.region or session.get_config_variable("region") or DEFAULT_REGION,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        aws_session_token=settings.session_token,
        config=Config(
            signature_version=None if is_known else UNSIGNED,  # a bucket may be public
            connect_timeout=min(CONNECT_SECONDS, settings.read_seconds),
            read_timeout=settings.read_seconds,
            retries={"total_max_attempts": 1},  # `cosyflow.storage.patience` asks again
            max_pool_connections=CONNECTIONS,
            tcp_keepalive=True,
            # Older stores refuse the checksums of newer clients; reading.py and writing.py have others.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if settings.endpoint else "auto"},
        ),
    )
