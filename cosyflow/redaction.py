"""Takes secrets out of texts. Errors pass through here when they are made, and all that a process prints.

A secret is known by its form (`://USER:PASSWORD@`, `?X-Amz-Signature=...`, `Authorization: Basic ...`), or because it
is the value of one of VARIABLES, or because somebody named it (`remember`). Child processes know what their
environment has.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, TextIO, cast
from urllib.parse import quote, quote_plus

VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "KFP_TOKEN", "PGPASSWORD",
)  # fmt: skip
"""Variables of the environment whose values are secrets."""
WITHDRAWN_VARIABLE = "COSYFLOW_WITHDRAWN"
"""What `cosyflow.credentials.withdraw` took out of addresses, as JSON, for this process and its children."""
SECRET = "<secret>"  # noqa: S105 - what stands in its place
SHORTEST, SHORTEST_ID, SHORTEST_INSIDE = 4, 12, 12
"""Characters: of a value that is looked for at all, of an access key's id, of a value that is found within words."""

USER_INFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<user>[^\s/?#'\"<>]+)@", re.IGNORECASE)
USER_INFO_WITH_SLASH = re.compile(r"(?<=://)[^\s/?#@:'\"<>]*:(?!\d*(?:[/?#\s]|$))[^\s@'\"<>]*@")
"""As people paste it: a password whose slash is not %2F; a port is none."""
SECRET_IN_QUERY = re.compile(
    r"(?P<key>[?&;](?:x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|sig|signature"
    r"|(?:access_|refresh_)?token|(?:api_?|access_?)?key|password|passwd|pwd|secret)=)[^&;\s'\"<>#]+",
    re.IGNORECASE,
)
AUTHORIZATION = re.compile(
    r"(?P<before>authorization['\"]?\s*[:=]\s*['\"]?(?:basic|bearer)\s+)[^\s'\",]+", re.IGNORECASE
)

_remembered: dict[str, str] = {}


def redact(text: str) -> str:
    """The text with a mark in the place of each secret."""
    pattern, marks = _known(tuple(map(os.environ.get, VARIABLES)), os.environ.get(WITHDRAWN_VARIABLE), len(_remembered))
    if pattern is not None:
        text = pattern.sub(lambda found: marks[found[0]], text)
    if "://" in text:
        text = USER_INFO_WITH_SLASH.sub(f"{SECRET}@", USER_INFO.sub(_without_user, text))
    if "=" in text:
        text = SECRET_IN_QUERY.sub(rf"\g<key>{SECRET}", text)
    if "uthorization" in text:
        text = AUTHORIZATION.sub(rf"\g<before>{SECRET}", text)
    return text


def remember(secret: str) -> None:
    """Names a secret of this process."""
    _remembered[secret] = SECRET


def is_secret_user(scheme: str, user: str) -> bool:
    """Whether what stands before an address's @ is more than a name: a web server takes a token there too."""
    return ":" in user or scheme.lower() in ("http", "https")


def guard_output() -> None:
    """From now on all that this process prints, as also logging, warnings and tracebacks do, is redacted."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is not None:  # it is where a process was started without one
            setattr(sys, name, guarded(stream))


def guarded(stream: TextIO) -> TextIO:
    """The stream, with all that is written redacted. Nothing is held back."""
    return stream if isinstance(stream, _Guarded) else cast(TextIO, _Guarded(stream))


class _Guarded:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _without_user(found: re.Match[str]) -> str:
    kept = found["user"] if not is_secret_user(found["scheme"], found["user"]) else SECRET
    return f"{found['scheme']}://{kept}@"


@lru_cache(maxsize=4)
def _known(
    values: tuple[str | None, ...], withdrawn: str | None, remembered: int
) -> tuple[re.Pattern[str] | None, dict[str, str]]:
    """A pattern that finds the secrets that are known now, in each of their spellings, and what each is replaced by."""
    marks: dict[str, str] = {}
    for name, value in zip(VARIABLES, values, strict=True):
        if value and len(value) >= (SHORTEST_ID if name.endswith("_ID") else SHORTEST):
            marks |= dict.fromkeys(_spellings(value), f"<{name}>")
    given = [secret for entry in json.loads(withdrawn or "[]") for secret in entry["secrets"]]
    for secret in (*_remembered, *given):
        if len(secret) >= SHORTEST:
            marks |= dict.fromkeys(_spellings(secret), SECRET)
    found = [_expression(text) for text in sorted(marks, key=len, reverse=True)]
    return (re.compile("|".join(found)) if found else None), marks


def _spellings(secret: str) -> set[str]:
    """A secret as it is, in an address, and in JSON."""
    return {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1]}


def _expression(text: str) -> str:
    """Finds a long secret anywhere, and a short one, which may be part of a word, as a word."""
    if len(text) >= SHORTEST_INSIDE:
        return re.escape(text)
    return rf"(?<![A-Za-z0-9]){re.escape(text)}(?![A-Za-z0-9])"
