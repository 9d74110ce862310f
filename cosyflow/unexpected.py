"""Exceptions that nobody foresaw, in words that name what was worked on.

Readers of other people (Arrow, PyTorch, libsndfile, ONNX Runtime, YAML, zip, tar) raise nearly everything for damaged
bytes; a user wants to know the file.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from cosyflow.errors import CosyFlowError
from cosyflow.redaction import redact

PANIC = "PanicException"
"""What libraries in Rust (tokenizers, safetensors) raise for what their authors did not foresee. No Exception."""
LONGEST = 300
"""Characters of a foreign exception's text that are repeated: some have a whole file in it."""


class UnexpectedError(CosyFlowError):
    """Work failed in a way that nobody foresaw, which says nothing about another attempt at it."""


@contextmanager
def reading(
    name: str | os.PathLike[str],
    kind: str,
    remedy: str = "make or fetch it again",
    raises: type[CosyFlowError] = CosyFlowError,
) -> Iterator[None]:
    """Names a file in whatever its reader raises that is not ours.

    Args:
        name: path or URI of the file.
        kind: what it should be, e.g. "a parquet file".
        remedy: what to do about it.
        raises: what the `with` body's exception becomes.
    """
    try:
        yield
    except CosyFlowError:
        raise
    except RecursionError as error:
        raise raises(f"{name}: nested too deeply for {kind}; correct it") from error
    except MemoryError as error:
        raise raises(f"{name}: asks for more memory than there is, is it damaged? {remedy}") from error
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != PANIC:
            raise
        raise raises(f"{name}: damaged or not {kind} ({describe(error)}); {remedy}") from error


def describe(error: BaseException) -> str:
    """An exception in one line of bearable length, without secrets."""
    if isinstance(error, OSError) and error.strerror:
        named = f"{os.fsdecode(error.filename)}: " if error.filename and not isinstance(error.filename, int) else ""
        return redact(f"{named}{error.strerror}")
    text = redact(" ".join(f"{type(error).__name__}: {error}".split()))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def write_traceback(error: BaseException) -> str:
    """Writes the traceback into a file, which is named to the user, and returns its name."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="cosyflow-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(redact("".join(traceback.format_exception(error))))
    except OSError as trouble:
        return f"no file ({trouble.strerror})"
    return file.name
