"""The Retrainings of files and folders, as Git has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from cosyflow.errors import Problem, RefusalError
from pipelines.retraining.model import GROUP, KIND, Retraining, read

ENDINGS = (".yaml", ".yml")


def read_retrainings(paths: Sequence[Path]) -> list[Retraining]:
    """The Retrainings of YAML files, and of those below folders; what else a file declares is left out.

    Raises:
        RefusalError: a path is not there, a file is not YAML, a Retraining is wrong or named twice, or there is none.
            All that is wrong at once.
    """
    problems: list[Problem] = []
    found: dict[str, tuple[Retraining, str]] = {}
    for path in paths:
        try:
            files = _files(path)
        except RefusalError as refusal:
            problems += refusal.problems
            continue
        before = len(found) + len(problems)
        for source, content in _documents(files, problems):
            try:
                one = read(content, source)
            except RefusalError as refusal:
                problems += refusal.problems
                continue
            if one.name in found:
                text = f"{one.name}: declared in {found[one.name][1]} too; names are unique"
                problems.append(Problem(source, text))
            found[one.name] = one, source
        if len(found) + len(problems) == before:
            problems.append(Problem(str(path), f"no {KIND} of {GROUP} in it; name its file or folder"))
    if problems:
        raise RefusalError(problems)
    return [one for one, _ in found.values()]


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.suffix in ENDINGS and file.is_file())
    if path.is_file():
        return [path]
    raise RefusalError([Problem(str(path), "no such file or folder; name one with Retrainings")])


def _documents(files: Sequence[Path], problems: list[Problem]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each document that declares a Retraining, with its place for messages."""
    for file in files:
        try:
            documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            problems.append(Problem(str(file), f"not YAML ({' '.join(str(error).split())}); correct it"))
            continue
        for number, document in enumerate(documents, start=1):
            if isinstance(document, dict) and document.get("kind") == KIND:
                yield str(file) if len(documents) == 1 else f"{file} document {number}", document
