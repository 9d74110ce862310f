"""Published checksums: lists as of `md5sum` and `sha256sum` next to the archives, and the known ones of LibriTTS."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cosyflow.corpus.http import FileDigests, NotFoundError, fetch_text
from cosyflow.errors import CosyFlowError

LISTS = ("md5sum.txt", "sha256sum.txt")
LIBRITTS_SHA256 = {  # of the files at https://www.openslr.org/60; torchaudio.datasets.LIBRITTS compares with the same
    "dev-clean.tar.gz": "da0864e1bd26debed35da8a869dd5c04dfc27682921936de7cff9c8a254dbe1a",
    "dev-other.tar.gz": "d413eda26f3a152ac7c9cf3658ef85504dfb1b625296e5fa83727f5186cca79c",
    "test-clean.tar.gz": "234ea5b25859102a87024a4b9b86641f5b5aaaf1197335c95090cde04fe9a4f5",
    "test-other.tar.gz": "33a5342094f3bba7ccc2e0500b9e72d558f72eb99328ac8debe1d9080402f10d",
    "train-clean-100.tar.gz": "c5608bf1ef74bb621935382b8399c5cdd51cd3ee47cec51f00f885a64c6c7f6b",
    "train-clean-360.tar.gz": "ce7cff44dcac46009d18379f37ef36551123a1dc4e5c8e4eb73ae57260de4886",
    "train-other-500.tar.gz": "e35f7e34deeb2e2bdfe4403d88c8fdd5fbf64865cae41f027a185a6965f0a5df",
}
_LINE = re.compile(r"(?P<digest>[0-9a-fA-F]{32}|[0-9a-fA-F]{64})\s+\*?(?:\./)?(?P<name>.+)")


def parse_checksums(text: str) -> dict[str, str]:
    """Hexadecimal digest by file name; what is not `DIGEST  NAME` is skipped."""
    matches = (_LINE.fullmatch(line.strip()) for line in text.splitlines())
    return {match["name"]: match["digest"].lower() for match in matches if match}


def published_checksums(base_url: str, file: str) -> list[str]:
    """The digests of `file` in the lists at `base_url`; where there is no list, the known one of LibriTTS.

    Raises:
        CosyFlowError: no list names the file, or there is none and the file is not of LibriTTS.
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
    if file in LIBRITTS_SHA256:
        return [LIBRITTS_SHA256[file]]
    raise CosyFlowError(
        f"{base_url} has neither {' nor '.join(LISTS)} to compare {file} with; "
        "is it the folder of the archives? (--checksum does without)"
    )


def agree(digests: FileDigests, expected: Sequence[str]) -> bool:
    """Whether a file has the MD5 (32 digits) and SHA-256 (64 digits) that are expected."""
    return all(wanted in (digests.md5, digests.sha256) for wanted in expected)
