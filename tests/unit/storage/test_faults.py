"""Each operation of a store with each fault, once and lasting: the work is whole, or the error has its code.

`make faults` runs all of the table; of `tests/unit` the part that is not left out below.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from cosyflow import storage
from cosyflow.errors import CosyFlowError, MissingObjectError, OutageError, StoreError
from cosyflow.storage import patience, reading, writing
from tests.unit.s3_proxy import FAULTS, OPERATIONS, REFUSALS, Plan, is_possible, proxy

OLD, NEW = b"old content", bytes(range(256)) * 4200  # the second is read by two requests
PARTS = bytes(range(256)) * (writing.PART_BYTES // 256 + 1)
OUTAGES = ("InternalError", "SlowDown", "reset", "hang", "truncated")
LASTING = ("AccessDenied", "ExpiredToken", "NoSuchKey")
CODES = {
    "reset": ("ConnectionClosedError", "EndpointConnectionError"),
    "hang": ("ReadTimeoutError",),
    "truncated": ("IncompleteBody", "ConnectionClosedError", "HTTPClientError", "ResponseStreamingError", "500"),
    "altered": ("DigestMismatch",),
}
ALL = [
    (operation, fault, times)
    for operation in OPERATIONS
    for fault in FAULTS
    for times in (1, float("inf"))
    if is_possible(operation, fault)
]
QUICK = [
    ("GET", "ExpiredToken", 1),
    ("GET", "altered", 1),
    ("GET", "altered", float("inf")),
    ("GET", "truncated", 1),
    ("GET", "NoSuchKey", float("inf")),
    ("GET", "hang", 1),
    ("HEAD", "ExpiredToken", float("inf")),
    ("HEAD", "NoSuchKey", 1),
    ("LIST", "truncated", 1),
    ("LIST", "AccessDenied", 1),
    ("PUT", "SlowDown", 1),
    ("PUT", "reset", float("inf")),
    ("complete upload", "reset", 1),
    ("DELETE", "InternalError", 1),
]
TABLE = ALL if os.environ.get("COSYFLOW_TEST_FAULTS") == "all" else QUICK


@pytest.fixture
def plan(s3_folder: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plan]:
    monkeypatch.setenv("COSYFLOW_S3_PATIENCE", "0.1")
    monkeypatch.setenv("COSYFLOW_S3_TIMEOUT", "2")
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS", 0.01)
    with proxy(s3_endpoint) as (address, planned):
        monkeypatch.setenv("COSYFLOW_S3_ENDPOINT", address)
        yield planned


def _list(uri: str) -> object:
    return storage.list_files(storage.parent(uri))


WORK: dict[str, Callable[[str], object]] = {
    "HEAD": storage.size,
    "GET": storage.read_bytes,
    "LIST": _list,
    "PUT": lambda uri: storage.write_bytes(uri, NEW),
    "create upload": lambda uri: storage.write_bytes(uri, PARTS),
    "upload part": lambda uri: storage.write_bytes(uri, PARTS),
    "complete upload": lambda uri: storage.write_bytes(uri, PARTS),
    "DELETE": storage.remove,
}
LEFT = {"PUT": NEW, "create upload": PARTS, "upload part": PARTS, "complete upload": PARTS}
"""What is there after writing."""


@pytest.mark.medium
@pytest.mark.parametrize(("operation", "fault", "times"), TABLE)
def test_the_whole_or_an_error_with_its_code(
    s3_folder: str, plan: Plan, monkeypatch: pytest.MonkeyPatch, operation: str, fault: str, times: float
) -> None:
    uri = storage.join(s3_folder, "file")
    before = NEW if operation in ("HEAD", "GET", "LIST") else OLD
    storage.write_bytes(uri, before)
    expected = WORK[operation](uri) if operation in ("HEAD", "GET", "LIST") else None
    monkeypatch.setenv("COSYFLOW_S3_TIMEOUT", "0.5" if fault == "hang" else "2")
    plan.operation, plan.fault, plan.times = operation, fault, times
    result, error = attempt(lambda: WORK[operation](uri))
    plan.times = 0
    assert plan.hit
    if error is None:
        assert times == 1 or (operation, fault) == ("DELETE", "NoSuchKey")
        assert result == expected
        if operation in LEFT:
            assert storage.read_bytes(uri) == LEFT[operation]
        assert storage.exists(uri) == (operation != "DELETE" or fault == "NoSuchKey")
        return
    assert times > 1 or fault in (*LASTING, "altered")
    assert str(error).startswith(storage.parent(uri) if operation == "LIST" else uri)
    assert error.code in codes_of(operation, fault), str(error)
    assert isinstance(error, OutageError) == (fault in OUTAGES), str(error)
    if operation != "DELETE" or fault not in ("reset", "hang"):  # there the object is gone, and only the answer is lost
        assert storage.read_bytes(uri) in (before, LEFT.get(operation))


def attempt(work: Callable[[], object]) -> tuple[object, StoreError | None]:
    try:
        return work(), None
    except StoreError as error:
        return None, error


def codes_of(operation: str, fault: str) -> tuple[str, ...]:
    if operation == "HEAD" and fault in REFUSALS:
        # Its answer has no room for the code, and the GET that asks for it succeeds here; what is listed is there.
        return ("ContradictoryAnswer",) if fault == "NoSuchKey" else (str(REFUSALS[fault]),)
    return CODES.get(fault, (fault,))


def test_the_code_of_a_head_request_comes_from_a_get_request(s3_folder: str, plan: Plan) -> None:
    """Of real stores both are refused; here one after the other."""
    uri = storage.join(s3_folder, "file")
    storage.write_bytes(uri, OLD)
    plan.operation, plan.fault, plan.times, plan.also = "HEAD", "ExpiredToken", float("inf"), ("GET",)
    with pytest.raises(StoreError, match=r"ExpiredToken \(HTTP status 400\): as planned; renew the credentials"):
        storage.size(uri)


def test_an_object_that_is_overwritten_while_it_is_read_is_noticed(s3_folder: str) -> None:
    uri = storage.join(s3_folder, "file")
    storage.write_bytes(uri, NEW)
    with storage.open_read(uri) as stream:
        stream.read(5)
        storage.write_bytes(uri, NEW[::-1])
        stream.seek(-5, os.SEEK_END)
        with pytest.raises(StoreError, match=rf"^{uri}: PreconditionFailed .* when nothing writes to it$"):
            stream.read()


def test_a_change_in_the_second_request_is_noticed_at_the_end(s3_folder: str, plan: Plan) -> None:
    uri = storage.join(s3_folder, "file")
    storage.write_bytes(uri, NEW)
    with storage.open_read(uri) as stream:
        stream.read(reading.SMALLEST_WINDOW)
        plan.operation, plan.fault, plan.times = "GET", "altered", 1
        with pytest.raises(StoreError, match=rf"^{uri}: DigestMismatch"):
            stream.read()


def test_the_md5_of_an_object_of_others_is_its_digest(
    s3_folder: str, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cosyflow.storage.client import client

    uri = storage.join(s3_folder, "file")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    client().put_object(Bucket=bucket, Key=key, Body=OLD)
    assert storage.read_bytes(uri) == OLD
    plan.operation, plan.fault, plan.times = "GET", "altered", float("inf")
    with pytest.raises(StoreError, match="COSYFLOW_S3_ETAGS=opaque"):
        storage.read_bytes(uri)
    monkeypatch.setenv("COSYFLOW_S3_ETAGS", "opaque")
    assert storage.read_bytes(uri) != OLD


def test_an_empty_object(s3_folder: str) -> None:
    uri = storage.join(s3_folder, "file")
    storage.write_bytes(uri, b"")
    assert (storage.read_bytes(uri), storage.size(uri)) == (b"", 0)


def test_a_missing_object_has_a_kind_of_error_of_its_own(folder: str) -> None:
    from cosyflow.errors import MissingError

    uri = storage.join(folder, "file")
    with pytest.raises(MissingError) as caught:
        storage.read_bytes(uri)
    assert isinstance(caught.value, MissingObjectError) == storage.is_remote(uri)


@pytest.mark.parametrize("variable", ["COSYFLOW_S3_PATIENCE", "COSYFLOW_S3_TIMEOUT"])
@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_a_time_is_a_number_of_seconds(
    s3_folder: str, monkeypatch: pytest.MonkeyPatch, variable: str, text: str
) -> None:
    monkeypatch.setenv(variable, text)
    with pytest.raises(CosyFlowError, match=f"{variable} must be a number of seconds above 0"):
        storage.exists(s3_folder)
