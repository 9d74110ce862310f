"""A valid file for a reader, and how others like it are made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Document:
    """A valid file; where it is made of values also these, and what makes a file of others."""

    content: bytes
    value: Any = None
    dump: Callable[[Any], bytes] | None = None

    @classmethod
    def of(cls, value: Any, dump: Callable[[Any], bytes]) -> Document:
        return cls(dump(value), value, dump)

    def dumped(self, value: Any) -> bytes:
        """A file of other values; the valid one where the format cannot have them."""
        assert self.dump is not None
        try:
            return self.dump(value)
        except Exception:
            return self.content


def to_json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def to_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")


def write(folder: Path, documents: Mapping[str, Document]) -> dict[str, Document]:
    for name, document in documents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(document.content)
    return dict(documents)
