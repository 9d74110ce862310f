"""Names of utterances and speakers that every file can hold, made of what the source calls them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from cosyflow.corpus.names import UniqueNames, safe_name

LONGEST = 120  # characters: a file of this name, with a suffix and a temporary ending, must fit into 255 bytes
_LONGEST_BYTES = 180
ANY_CORPUS = {
    "wav",
    "wavs",
    "wav48",
    "audio",
    "audios",
    "clips",
    "data",
    "mp3",
    "flac",
    "train",
    "speech",
    "recordings",
}
"""Folders that are named for what is in them, not for who speaks."""


class Names:
    """Gives each utterance a name of its own: that of its file, or of its path when that is taken."""

    def __init__(self) -> None:
        self._unique = UniqueNames()

    def utterance(self, source: str) -> str:
        path = source.strip("/")
        name = short(safe_name(PurePosixPath(path).name))
        return self._unique.make(short(safe_name(path)) if name in self._unique else name)


def speakers_of(names: Iterable[str]) -> dict[str, str]:
    """The name that each speaker of the source gets: different ones for different speakers."""
    unique = UniqueNames()
    return {speaker: unique.make(short(safe_name(speaker))) for speaker in sorted(set(names))}


def short(name: str) -> str:
    """The name without slashes, not hidden, and not longer than file systems allow."""
    flat = name.replace("/", "_").replace("\\", "_").lstrip(".") or "unnamed"
    if len(flat) <= LONGEST and len(flat.encode()) <= _LONGEST_BYTES:
        return flat
    digest = hashlib.sha256(flat.encode()).hexdigest()[:12]
    return flat.encode()[: _LONGEST_BYTES - 40].decode("utf-8", "ignore")[: LONGEST - 20] + "_" + digest


def folder_speakers(sources: Sequence[str], corpus: str) -> list[str]:
    """Who speaks, by the first folder that not all utterances share; where there is none, one name for all.

    Args:
        sources: paths of the utterances within the source.
        corpus: the name of the source, for speech in folders that name no speaker.
    """
    folders = [PurePosixPath(source).parts[:-1] for source in sources]
    if not folders:
        return []
    shared = next((depth for depth, parts in enumerate(zip(*folders, strict=False)) if len(set(parts)) > 1), None)
    shared = min(map(len, folders)) if shared is None else shared
    only = next((part for part in reversed(folders[0][:shared]) if part.lower() not in ANY_CORPUS), corpus)
    return [parts[shared] if len(parts) > shared else only for parts in folders]
