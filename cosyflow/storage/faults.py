"""What a failed request to a store means, by its error code, HTTP status and kind of exception; never by its words."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit


class Course(Enum):
    """What is to be expected of the same request, made again."""

    LASTING = "it fails again"
    BRIEF = "it may succeed at once; where it does not, time will not help"
    OUTAGE = "it succeeds when the store is back"
    MISSING = "there is no such object"


@dataclass(frozen=True)
class Fault:
    """A failed request.

    Attributes:
        code: of the store, or the name of what happened on the way.
        status: of HTTP; 0 where there was no answer.
        words: what the store says in addition to its code.
        remedy: what a user can do.
    """

    code: str
    status: int
    course: Course
    words: str
    remedy: str

    def __str__(self) -> str:
        status = f" (HTTP status {self.status})" if self.status else ""
        return f"{self.code}{status}{f': {self.words}' if self.words else ''}; {self.remedy}"


class BrokenAnswerError(Exception):
    """An answer that cannot be right: shorter than it says, or of other bytes than the store's digest.

    Attributes:
        code: a key of CODES.
    """

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


NO_SUCH_FEATURE = "NotImplemented"
"""The code of a store that has no conditional writes, when it is asked for one."""

RIGHTS = "give the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) the right to it, or set others"
RENEW = "renew the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN) and start again"
SET_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
KEYS = "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the address of the store (COSYFLOW_S3_ENDPOINT)"
CLOCK = "set this machine's clock"
CHECK_NAME = "check the address"
WAIT = "start again when the store answers"
ROOM = "make room in the store, or raise its quota"
COPY = "start again; when it comes again, look after the network and the store, and write the object anew"
NO_S3 = "is there an S3 store at this address?"
OPAQUE = f"{COPY}; a store whose ETags are no MD5 digests needs COSYFLOW_S3_ETAGS=opaque"
OVERWRITTEN = "start again when nothing writes to it"
UNKNOWN = "look the code up in the store's documentation, and into its log"

CODES: Mapping[str, tuple[Course, str]] = {
    "AccessDenied": (Course.LASTING, RIGHTS),
    "AccountProblem": (Course.LASTING, RIGHTS),
    "AllAccessDisabled": (Course.LASTING, RIGHTS),
    "403": (Course.LASTING, RIGHTS),
    "ExpiredToken": (Course.LASTING, RENEW),
    "ExpiredTokenException": (Course.LASTING, RENEW),
    "TokenRefreshRequired": (Course.LASTING, RENEW),
    "InvalidToken": (Course.LASTING, RENEW),
    "InvalidClientTokenId": (Course.LASTING, RENEW),
    "InvalidAccessKeyId": (Course.LASTING, KEYS),
    "SignatureDoesNotMatch": (Course.LASTING, KEYS),
    "AuthorizationHeaderMalformed": (Course.LASTING, "set AWS_REGION to the region of the bucket"),
    "PermanentRedirect": (Course.LASTING, "set AWS_REGION to the region of the bucket"),
    "RequestTimeTooSkewed": (Course.LASTING, CLOCK),
    "RequestExpired": (Course.LASTING, CLOCK),
    "NoSuchBucket": (Course.MISSING, "make the bucket, or check the address"),
    "NoSuchKey": (Course.MISSING, CHECK_NAME),
    "404": (Course.MISSING, CHECK_NAME),
    "InvalidBucketName": (Course.LASTING, CHECK_NAME),
    "KeyTooLongError": (Course.LASTING, CHECK_NAME),
    "InvalidObjectState": (Course.LASTING, "restore the object from its archive"),
    NO_SUCH_FEATURE: (Course.LASTING, "use a store that can do this"),
    "XMinioStorageFull": (Course.LASTING, ROOM),
    "XMinioAdminBucketQuotaExceeded": (Course.LASTING, ROOM),
    "QuotaExceeded": (Course.LASTING, ROOM),
    "EntityTooLarge": (Course.LASTING, "write it in smaller files"),
    "PreconditionFailed": (Course.LASTING, OVERWRITTEN),
    "Overwritten": (Course.LASTING, OVERWRITTEN),
    "NoSuchUpload": (Course.BRIEF, WAIT),
    "BadDigest": (Course.BRIEF, COPY),
    "InvalidDigest": (Course.BRIEF, COPY),
    "InvalidPart": (Course.BRIEF, COPY),
    "IncompleteBody": (Course.BRIEF, COPY),
    "DigestMismatch": (Course.BRIEF, OPAQUE),
    "ContradictoryAnswer": (Course.BRIEF, COPY),
    "ConditionalRequestConflict": (Course.OUTAGE, WAIT),
    "OperationAborted": (Course.OUTAGE, WAIT),
    "RequestTimeout": (Course.OUTAGE, WAIT),
    "Throttling": (Course.OUTAGE, WAIT),
    "ThrottlingException": (Course.OUTAGE, WAIT),
    "TooManyRequests": (Course.OUTAGE, WAIT),
    "RequestLimitExceeded": (Course.OUTAGE, WAIT),
    "SlowDown": (Course.OUTAGE, WAIT),
    "ServiceUnavailable": (Course.OUTAGE, WAIT),
    "InternalError": (Course.OUTAGE, WAIT),
    "XMinioServerNotInitialized": (Course.OUTAGE, WAIT),
}
"""By the code of the store. A HEAD request has the status for a code, since its answer has no body."""

OUTAGE_STATUSES = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


def exceptions() -> tuple[type[Exception], ...]:
    """What the client raises where a request fails."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    return (ClientError, BotoCoreError, ResponseParserError, BrokenAnswerError)


def code_of(error: Exception) -> tuple[str, int]:
    """(error code, HTTP status) of an answer that refuses; ("", 0) of anything else."""
    answer: Mapping[str, Any] = getattr(error, "response", None) or {}
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
    return str(answer.get("Error", {}).get("Code", "") or status or ""), status


def fault_of(error: Exception) -> Fault:
    """What is wrong, of one of `exceptions`. What is not known lasts: waiting for it would only hide it."""
    if isinstance(error, BrokenAnswerError):
        course, remedy = CODES[error.code]
        return Fault(error.code, 0, course, str(error), remedy)
    code, status = code_of(error)
    if status or code:
        code = NO_SUCH_FEATURE if status == HTTPStatus.NOT_IMPLEMENTED else code
        course, remedy = _answered(code, status)
        return Fault(code, status, course, _words(error, code), remedy)
    return _unanswered(error)


def _answered(code: str, status: int) -> tuple[Course, str]:
    if code in CODES:
        return CODES[code]
    if status == HTTPStatus.INSUFFICIENT_STORAGE:
        return Course.LASTING, ROOM
    if status in OUTAGE_STATUSES or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Course.OUTAGE, WAIT
    return Course.LASTING, UNKNOWN


def _words(error: Exception, code: str) -> str:
    words = str(getattr(error, "response", {}).get("Error", {}).get("Message", "") or "")
    return "" if code == words or code.isdecimal() else words.rstrip(". ")


def _unanswered(error: Exception) -> Fault:
    from botocore import exceptions as known
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import NameResolutionError

    code = type(error).__name__
    cause = getattr(error, "kwargs", {}).get("error")
    reason = getattr(cause, "reason", None) or cause
    if isinstance(reason, NameResolutionError):  # more often a misspelt address than an outage
        words = f"the host name of the store{_place(error)} cannot be resolved"
        return Fault(code, 0, Course.BRIEF, words, "correct COSYFLOW_S3_ENDPOINT, or the name service")
    if isinstance(error, known.SSLError) and _is_untrusted(cause):
        return Fault(code, 0, Course.LASTING, "its certificate is not trusted", "name the authority in AWS_CA_BUNDLE")
    if isinstance(error, (known.ResponseStreamingError, known.IncompleteReadError)):
        return Fault("IncompleteBody", 0, Course.OUTAGE, "the answer ended early", COPY)
    if isinstance(error, known.ReadTimeoutError):
        words = f"the store{_place(error)} did not answer in time (COSYFLOW_S3_TIMEOUT)"
        return Fault(code, 0, Course.OUTAGE, words, WAIT)
    if isinstance(error, (known.ConnectionError, known.HTTPClientError)):
        return Fault(code, 0, Course.OUTAGE, f"the store{_place(error)} cannot be reached", WAIT)
    if isinstance(error, (known.NoCredentialsError, known.PartialCredentialsError)):
        return Fault(code, 0, Course.LASTING, "there are no credentials", SET_KEYS)
    if isinstance(error, known.ProfileNotFound):
        return Fault(code, 0, Course.LASTING, "there is no such profile", "correct AWS_PROFILE, or the files of ~/.aws")
    if isinstance(error, (known.CredentialRetrievalError, known.MetadataRetrievalError)):
        return Fault(code, 0, Course.BRIEF, "the credentials cannot be fetched", RENEW)
    if isinstance(error, (known.TokenRetrievalError, known.SSOError)):
        return Fault(code, 0, Course.LASTING, "the credentials cannot be fetched", RENEW)
    if isinstance(error, known.ParamValidationError):
        return Fault(code, 0, Course.LASTING, "no store has such a name", CHECK_NAME)
    if isinstance(error, ResponseParserError):
        return Fault("InvalidResponse", 0, Course.BRIEF, "the answer is not that of an S3 store", NO_S3)
    return Fault(code, 0, Course.LASTING, " ".join(str(error).split()), UNKNOWN)


def _place(error: Exception) -> str:
    """The address of a request's store after a blank, where it is known."""
    parts = urlsplit(str(getattr(error, "kwargs", {}).get("endpoint_url") or ""))
    return f" {parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}" if parts.hostname else ""


def _is_untrusted(cause: object) -> bool:
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        inner = (each for each in getattr(cause, "args", ()) if isinstance(each, Exception))
        cause = getattr(cause, "reason", None) or next(inner, None)
    return False
