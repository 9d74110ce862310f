"""Finding the audio file that a table means: by its path, without its suffix, or by a name that is there once."""

from __future__ import annotations

import os.path
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from cosyflow import storage
from cosyflow.audio.locator import Locator, is_local_file
from cosyflow.corpus.importing.source import Source, without_suffix


class AudioFiles:
    """The audio files of a source, found by what tables call them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._by_stem = once((without_suffix(path), path) for path in source.audio)
        self._by_name = once((PurePosixPath(path).name, path) for path in source.audio)
        self._by_bare_name = once((PurePosixPath(without_suffix(path)).name, path) for path in source.audio)

    def problem(self, path: str) -> str:
        """Why a file of the source cannot be read; "" when nothing is known against it."""
        found = self._source.audio.get(path)
        return f"{found.problem}: {self._source.uri(path)}" if found and found.problem else ""

    def find(self, value: str, folder: str) -> tuple[str, str]:
        """The locator of the audio that a table in `folder` (relative to the root) names, and its path in the source.

        The path is "" for a file outside of the source; both are "" when there is no such file.
        """
        value = value.strip().replace("\\", "/")
        if not value:
            return "", ""
        path = self._inside(value, folder)
        if path:
            return str(Locator(self._source.uri(path))), path
        return self._outside(value, folder), ""

    def _inside(self, value: str, folder: str) -> str:
        root = self._source.root.rstrip("/") + "/"
        relative = value.removeprefix(root)
        for candidate in (os.path.normpath(os.path.join(folder, relative)), os.path.normpath(relative)):  # noqa: PTH118
            if candidate in self._source.audio:
                return candidate
            if candidate in self._by_stem:
                return self._by_stem[candidate]
        if value.startswith("/") or "://" in value:
            return ""
        name = PurePosixPath(value).name
        return self._by_name.get(name) or self._by_bare_name.get(name) or ""

    def _outside(self, value: str, folder: str) -> str:
        if "://" in value:
            return str(Locator(value))
        if storage.is_remote(self._source.root):
            return ""
        path = str(Path(self._source.root, folder, value))
        return str(Locator(os.path.realpath(path))) if is_local_file(path) else ""


def once(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Path by name, of the names that only one path has."""
    paths: defaultdict[str, list[str]] = defaultdict(list)
    for name, path in pairs:
        paths[name].append(path)
    return {name: found[0] for name, found in paths.items() if len(found) == 1}
