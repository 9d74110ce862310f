"""Published checksums: lists in the form of `md5sum` and `sha256sum`, which lie beside the archives."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cosyflow.corpus.http import FileDigests, NotFoundError, fetch_text
from cosyflow.errors import CosyFlowError

LISTS = ("md5sum.txt", "sha256sum.txt")
_LINE = re.compile(r"(?P<digest>[0-9a-fA-F]{32}|[0-9a-fA-F]{64})\s+\*?(?:\./)?(?P<name>.+)")


def parse_checksums(text: str) -> dict[str, str]:
    """Hexadecimal digest by file name; what is not `DIGEST  NAME` is skipped."""
    matches = (_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {match["name"]: match["digest"].lower() for match in matches if match}


def published_checksums(base_url: str, file: str) -> list[str]:
    """The digests of `file` in the lists at `base_url`.

    Raises:
        CosyFlowError: no list names the file.
    """
    found: list[str] = []
    others: list[str] = []
    for name in LISTS:
        try:
            listed = parse_checksums(fetch_text(f"{base_url}/{name}"))
        except NotFoundError:
            continue
        found += [digest for listed_file, digest in listed.items() if listed_file == file]
        others += [listed_file for listed_file in listed if listed_file not in others]
    if found:
        return found
    if others:
        raise CosyFlowError(f"{base_url} has no {file}; its checksums name {', '.join(others)}")
    raise CosyFlowError(
        f"{base_url} has neither {' nor '.join(LISTS)} to compare {file} with; "
        "is it the folder of the archives? (--checksum does without)"
    )


def agree(digests: FileDigests, expected: Sequence[str]) -> bool:
    """Whether a file has the MD5 (32 digits) and SHA-256 (64 digits) that are expected."""
    return all(wanted in (digests.md5, digests.sha256) for wanted in expected)
