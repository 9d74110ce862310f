"""Files that a stage needs of the pretrained directory."""

from __future__ import annotations

from collections.abc import Iterator

from cosyflow import storage
from cosyflow.errors import CosyFlowError, Problem
from cosyflow.pretrained import how_to_get, locate
from cosyflow.run.record import Record


def missing_file(record: Record, *names: str) -> Iterator[Problem]:
    """A problem when the run's pretrained directory has none of these files."""
    directory = record.run.pretrained_dir
    if not directory:
        yield Problem("pretrained_dir", f"is empty, {names[0]} is needed; {how_to_get(*names)}")
        return
    try:
        locate(directory, *names)
    except CosyFlowError as error:
        yield Problem("pretrained_dir", str(error))


def in_pretrained(record: Record, name: str) -> str:
    """The URI of a file of the pretrained directory; "" when it has no such file."""
    directory = record.run.pretrained_dir
    uri = storage.join(directory, name) if directory else ""
    return uri if uri and storage.exists(uri) else ""
