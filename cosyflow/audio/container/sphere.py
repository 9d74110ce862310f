"""NIST SPHERE: the number of samples stands in its header as text."""

from __future__ import annotations

import re
from typing import BinaryIO

from cosyflow.audio.container.facts import Facts, IncompleteError

_HEADER_BYTES = 1024
_FIELD = re.compile(rb"^(sample_count|sample_n_bytes|channel_count) -i (\d+)", re.MULTILINE)


def look(stream: BinaryIO, size: int) -> Facts:
    """Raises IncompleteError when fewer bytes follow the header than it promises samples."""
    stream.seek(0)
    header = stream.read(_HEADER_BYTES)
    fields = {name: int(value) for name, value in _FIELD.findall(header)}
    wanted = fields.get(b"sample_count", 0) * fields.get(b"sample_n_bytes", 1) * fields.get(b"channel_count", 1)
    missing = wanted - (size - _HEADER_BYTES)
    if missing > 0 and b"shorten" not in header:
        raise IncompleteError(f"its header promises {missing} bytes more than are there")
    return Facts()
