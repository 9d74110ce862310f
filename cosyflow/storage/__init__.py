"""One way to name and touch files, on this machine and in an S3 store.

A URI is a local path (`/data/x`, `exp/x`, `file:///data/x`) or `s3://bucket/key`. Writes are atomic: a file appears
whole, under its name, or not at all. The store's endpoint and credentials come from the environment only:
COSYFLOW_S3_ENDPOINT, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, then AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
AWS_REGION, or where boto3 finds them.

Every function raises CosyFlowError, naming the URI, for what is missing, forbidden or unreachable: MissingError,
StoreError with the store's error code, OutageError. A store that does not answer is waited for, two minutes at most
(COSYFLOW_S3_PATIENCE); not so in the body of `with impatient():`.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from cosyflow.credentials import withdraw
from cosyflow.errors import CosyFlowError, StoreError
from cosyflow.scratch import scratch_folder
from cosyflow.storage import fences, local
from cosyflow.storage.faults import NO_SUCH_FEATURE
from cosyflow.storage.fences import LEASES, fenced
from cosyflow.storage.local import LocalFiles
from cosyflow.storage.patience import impatient, outage_seconds
from cosyflow.storage.s3 import S3Objects

__all__ = [
    "LEASES", "FileInfo", "Fingerprint", "check_fences", "create", "creates_once", "digest", "download_tree",
    "exists", "fenced", "fingerprint", "fingerprints", "has_files", "impatient", "is_folder", "is_remote", "join",
    "list_files", "local_copy", "make_directory", "modified", "name", "open_read", "open_write", "outage_seconds",
    "parent", "read_bytes", "read_json", "read_text", "remove", "remove_unfinished", "size", "upload_tree",
    "write_bytes", "write_json", "write_text",
]  # fmt: skip

COPY_BYTES = 1 << 20
TREE_THREADS = 8
S3_SCHEME = "s3://"
FILE_SCHEME = "file://"

_LOCAL, _S3 = LocalFiles(), S3Objects()


@dataclass(frozen=True, order=True)
class FileInfo:
    """A file below a folder: its path relative to that folder, with forward slashes, and its size in bytes."""

    path: str
    size: int


class Fingerprint(NamedTuple):
    """A file's state, known without reading it: another one means that the content may be another.

    Attributes:
        size: bytes.
        mark: inode and time of modification of a local file, ETag of an object.
        changed_ns: when a local file's content or inode last changed, in ns since 1970 by the clock of its file system,
            which may tick coarsely: what was changed a moment ago can change again under the same fingerprint.
            0 for an object, whose ETag follows its content.
    """

    size: int
    mark: str
    changed_ns: int


def is_remote(uri: str) -> bool:
    return str(uri).startswith(S3_SCHEME)


def join(uri: str, *parts: str) -> str:
    """`uri` with relative `parts` below it."""
    if any(part.startswith("/") for part in parts):
        raise ValueError(f"only relative parts can be joined to {uri}: {parts}")
    if is_remote(uri):
        return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts if part)])
    return str(Path(_resolve(uri)[1]).joinpath(*parts))


def parent(uri: str) -> str:
    if is_remote(uri):
        return S3_SCHEME + str(PurePosixPath(_resolve(uri)[1]).parent)
    return str(Path(_resolve(uri)[1]).parent)


def name(uri: str) -> str:
    """The last part of the URI."""
    return PurePosixPath(_resolve(uri)[1]).name


def exists(uri: str) -> bool:
    """Whether there is a file or a folder; in a store a folder exists when a key lies below it."""
    files, path = _resolve(uri)
    return files.kind(path) is not None


def is_folder(uri: str) -> bool:
    """Whether there is a folder; in a store: a key below it."""
    files, path = _resolve(uri)
    return files.kind(path) == "folder"


def has_files(uri: str) -> bool:
    """Whether a folder has any file or folder in it."""
    files, path = _resolve(uri)
    return files.has_any(path)


def size(uri: str) -> int:
    """Bytes of a file."""
    files, path = _resolve(uri)
    return files.size(path)


def modified(uri: str) -> float:
    """When a file was last written, in seconds since 1970 by the clock of the store (of the file system)."""
    files, path = _resolve(uri)
    return files.modified(path)


def list_files(uri: str) -> list[FileInfo]:
    """Every finished file below a folder at any depth, sorted by path; none when the folder does not exist."""
    files, path = _resolve(uri)
    return sorted(FileInfo(relative, count) for relative, count in files.walk(path))


def fingerprint(uri: str) -> Fingerprint:
    """The state of a file, of the one that a symlink leads to; CosyFlowError when there is none."""
    files, path = _resolve(uri)
    return Fingerprint._make(files.state(path))


def fingerprints(uri: str, deep: bool = True) -> dict[str, Fingerprint]:
    """The states of the finished files below a folder by relative path, in order; none when it does not exist.

    Args:
        deep: at any depth, symlinked folders included; otherwise those of the folder itself alone.

    A store is asked once for a thousand objects. CosyFlowError names a dangling symlink and a folder that cannot be
    read.
    """
    files, path = _resolve(uri)
    make = Fingerprint._make
    return {relative: make(state) for relative, state in sorted(files.states(path, deep))}


def check_fences(uri: str) -> None:
    """Raises when the place may not be written any more (`fenced`); for what writes there by other means than these."""
    fences.check(_resolve(uri)[1] if not is_remote(uri) else uri)


def make_directory(uri: str) -> None:
    """Makes a folder and its parents; in a store there is nothing to make."""
    files, path = _resolve(uri)
    files.make_directory(path)


def open_read(uri: str) -> BinaryIO:
    """A seekable stream; use it in a `with` statement."""
    files, path = _resolve(uri)
    return files.open_read(path)


def open_write(uri: str) -> AbstractContextManager[BinaryIO]:
    """A stream whose content appears under `uri` when the `with` body ends, and not at all when the body raises."""
    files, path = _resolve(uri)
    return files.open_write(path)


def read_bytes(uri: str) -> bytes:
    with open_read(uri) as stream:
        return stream.read()


def read_text(uri: str) -> str:
    """The text of a UTF-8 file; the error for anything else names the line and the byte."""
    data = read_bytes(uri)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CosyFlowError(
            f"{uri}:{line}: byte 0x{data[error.start]:02x} (offset {error.start}) is not UTF-8; save the file as UTF-8"
        ) from error


def read_json(uri: str) -> Any:
    text = read_text(uri)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise CosyFlowError(f"{uri}:{error.lineno}: not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        raise CosyFlowError(f"{uri}: not JSON of ours: {error}") from error


def write_bytes(uri: str, data: bytes) -> None:
    with open_write(uri) as stream:
        stream.write(data)


def write_text(uri: str, text: str) -> None:
    write_bytes(uri, text.encode("utf-8"))


def write_json(uri: str, value: Any) -> None:
    """Indented JSON in the order of the value's keys, with a newline at the end."""
    write_text(uri, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def create(uri: str, data: bytes) -> bool:
    """Writes a small file if there is none. Returns whether it did: of several at the same time, one does.

    Only where `creates_once` is true. False may also mean that an attempt whose answer was lost had written it, so
    write what names the writer and look.
    """
    files, path = _resolve(uri)
    return files.create(path, data)


def creates_once(folder: str) -> bool:
    """Whether the store refuses to create a file a second time; a store that does not know how to overwrites it.

    A folder of this machine always does. A store is asked once for each bucket, by an object below `folder` that is
    removed again.
    """
    return not is_remote(folder) or _bucket_creates_once(_resolve(folder)[1].partition("/")[0], folder)


@lru_cache(maxsize=16)
def _bucket_creates_once(bucket: str, folder: str) -> bool:
    probe = join(folder, LEASES, f"probe.{secrets.token_hex(8)}")
    try:
        return create(probe, b"1") and not create(probe, b"2")
    except StoreError as error:
        if error.code == NO_SUCH_FEATURE:
            return False
        raise
    finally:
        remove(probe)


def remove_unfinished(folder: str, prefix: str = "") -> None:
    """Removes what killed writers have left in a folder of this machine, of files whose names begin with `prefix`.

    A store never shows a half-written object.
    """
    if not is_remote(folder):
        local.remove_unfinished(_resolve(folder)[1], prefix)


def remove(uri: str) -> None:
    """Removes a file or a whole folder; what is already gone is no error."""
    files, path = _resolve(uri)
    files.remove(path)


def digest(uri: str) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    sha256 = hashlib.sha256()
    with open_read(uri) as stream:
        while chunk := stream.read(COPY_BYTES):
            sha256.update(chunk)
    return sha256.hexdigest()


@contextmanager
def local_copy(uri: str) -> Iterator[Path]:
    """A path on this machine with the content of a file or folder: its own path, or a download for the `with` body."""
    files, path = _resolve(uri)
    kind = files.kind(path)
    if kind is None:
        raise CosyFlowError(f"{uri} does not exist")
    if not is_remote(uri):
        yield Path(path)
        return
    with scratch_folder() as folder:
        copy = folder / name(uri)
        if kind == "folder":
            download_tree(uri, copy)
        else:
            _copy(uri, str(copy))
        yield copy


def upload_tree(directory: Path | str, uri: str) -> list[FileInfo]:
    """Copies every file below a local folder to below `uri`; returns them. Each file is atomic, the tree is not."""
    return _copy_tree(str(directory), uri)


def download_tree(uri: str, directory: Path | str) -> list[FileInfo]:
    """Copies every file below `uri` to below a local folder; returns them. Each file is atomic, the tree is not."""
    return _copy_tree(uri, str(directory))


def _copy_tree(source: str, target: str) -> list[FileInfo]:
    listed = list_files(source)
    make_directory(target)
    with ThreadPoolExecutor(TREE_THREADS) as threads:
        copies = [threads.submit(_copy, join(source, file.path), join(target, file.path)) for file in listed]
        try:
            for copy in copies:
                copy.result()
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    return listed


def _copy(source: str, target: str) -> None:
    with open_read(source) as reader, open_write(target) as writer:
        shutil.copyfileobj(reader, writer, COPY_BYTES)


def _resolve(uri: str) -> tuple[LocalFiles | S3Objects, str]:
    uri = str(uri)
    if is_remote(uri):
        withdraw(uri)  # refuses a key in it
        path = uri.removeprefix(S3_SCHEME).strip("/")
        if not path:
            raise CosyFlowError(f"{uri} names no bucket: write s3://BUCKET/PREFIX")
        return _S3, path
    if uri.startswith(FILE_SCHEME):
        return _LOCAL, uri.removeprefix(FILE_SCHEME)
    if "://" in uri:
        raise CosyFlowError(f"{uri}: unknown kind of address, use a local path or s3://BUCKET/PREFIX")
    return _LOCAL, uri
